"""Small networks with random weights, for tests of the jobs around them."""

from __future__ import annotations

from pathlib import Path

import torch

from hqsod import weights
from hqsod.models.purnet import PurNet, build_purnet


def tiny_purnet() -> PurNet:
    """A network whose maps spread from 0 to 1, unlike those of fresh weights."""
    torch.manual_seed(0)
    network = build_purnet("light", width=8).eval()
    image = torch.rand(1, 3, 8, 8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    last = network.purificatory.heads[0][6]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        logits = network(image).logit()[..., 8:-8, 8:-8]
        last.bias.sub_(logits.mean()).mul_(2 / logits.std())
        last.weight.mul_(2 / logits.std())
    return network


def save_tiny(path: Path, size: int = 64) -> Path:
    """`tiny_purnet` as a weights file for pictures of a size; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.save(path, tiny_purnet().state_dict(), {"network": "PurNet", "size": str(size)})
    return path

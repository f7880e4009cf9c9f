"""Small networks with random weights, for tests of the jobs around them."""

from __future__ import annotations

from pathlib import Path

import torch

from hqsod import weights
from hqsod.models.purnet import PurNet, build_purnet


def tiny_purnet(seed: int = 0) -> PurNet:
    """A network whose maps are far from flat, unlike those of fresh weights."""
    torch.manual_seed(seed)
    network = build_purnet("light", width=8).eval()
    with torch.no_grad():
        last = network.purificatory.heads[0][6]
        assert isinstance(last, torch.nn.Conv2d)
        last.weight.mul_(400)
    return network


def save_tiny(path: Path, size: int = 64) -> Path:
    """`tiny_purnet` as a weights file for pictures of a size; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.save(path, tiny_purnet().state_dict(), {"network": "PurNet", "size": str(size)})
    return path

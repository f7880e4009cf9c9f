"""PurNet against a literal implementation of its paper: prediction, loss, a training step, memory.

    python benchmarks/purnet.py

The literal one (`tests/reference/purnet.py`) computes every side output of every subnetwork, takes
superpixel means by a dense matrix picture by picture, and goes back through the whole graph three
times. Both carry the same weights; that they agree is checked before anything is timed. Peak
memory is that of a process which takes one training step.

A stage 1 step of the recipe `quick` is timed in bf16 with PyTorch's own gradient of depthwise
convolutions, with the float32 one that takes its place, and with the blocks frozen that `quick`
freezes; by processor time, so run it with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from time import process_time
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from common import ROOT, machine, ratio, report, take_turns
from hqsod.inference.torch_devices import has_native_bf16
from hqsod.losses import structural_similarity_loss
from hqsod.models import efficientnet
from hqsod.models.blocks import fold
from hqsod.models.purnet import MEAN, STD, build_purnet, load_purnet
from hqsod.training.batches import Batches, StoredImages
from hqsod.training.purnet import PurNetTask
from hqsod.training.recipes import read_recipe
from hqsod.training.store import Store
from hqsod.training.superpixels import slic_superpixels
from hqsod.training.trainer import Trainer
from tests.golden import deterministic, inputs
from tests.reference import purnet as literal

SIZE = 320
SHAPES = "tests/golden/purnet_checkpoint_shapes.json"


def checkpoint() -> dict[str, Tensor]:
    shapes = json.loads((ROOT / SHAPES).read_text())["stage2_and_3"]
    state = deterministic.state_dict(shapes)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in state.items()}


def reference() -> literal.ReferencePurNet:
    network = literal.ReferencePurNet()
    network.load_state_dict(checkpoint())
    return network.eval()


def batch() -> dict[str, Tensor]:
    """Chelsea and coffee at 320 x 320, as the loader gives them."""
    names = ("chelsea", "coffee")
    photos = np.stack([inputs.photo(n).resize((SIZE, SIZE)) for n in names])
    masks = np.stack([inputs.mask(n).resize((SIZE, SIZE), 0) for n in names])[..., None]
    labels = np.stack([slic_superpixels(photo, 200) for photo in photos])
    return {
        "image": torch.from_numpy(photos).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(masks).permute(0, 3, 1, 2),
        "superpixels": torch.from_numpy(labels),
    }


def normalised(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (image.float() / 255 - mean) / std


def prediction() -> dict[str, Callable[[], object]]:
    """One picture at 320 x 320 to its saliency map."""
    picture = batch()["image"][:1]
    plain, image = reference(), normalised(picture).contiguous()
    ours = {"float32": torch.float32}
    if has_native_bf16(torch.device("cpu")):
        ours["bf16"] = torch.bfloat16
    variants: dict[str, Callable[[], object]] = {"literal": lambda: plain(image)[0][0]}
    for name, dtype in ours.items():
        network = fold(load_purnet(checkpoint())).to(memory_format=torch.channels_last)
        for part in network.children():
            part.to(dtype)

        def run(network: torch.nn.Module = network, dtype: torch.dtype = dtype) -> Tensor:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                return network(picture / 255)

        worst = (run() - variants["literal"]()).abs().max().item()
        assert worst < (1e-3 if dtype == torch.float32 else 0.2), (name, worst)
        variants[name] = run
    return variants


def loss() -> dict[str, Callable[[], object]]:
    """Structural similarity of one side output of two pictures, with its gradient."""
    shown = batch()
    mask, labels = shown["mask"].float() / 255, shown["superpixels"]
    logits = torch.randn(2, 1, SIZE, SIZE).requires_grad_()

    def plain() -> Tensor:
        return literal.structural_similarity_loss(logits.sigmoid(), mask, labels[:, None])

    def ours() -> Tensor:
        return structural_similarity_loss(logits, mask, labels)[0]

    torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-6)
    steps = {"literal": plain, "hqsod": ours}
    return {name: lambda f=f: torch.autograd.grad(f(), logits) for name, f in steps.items()}


def literal_step() -> Callable[[], object]:
    network, shown = reference().train(), batch()
    image, mask = normalised(shown["image"]).contiguous(), shown["mask"].float() / 255
    labels = shown["superpixels"][:, None]
    optimizer = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9, weight_decay=5e-4)
    return lambda: literal.training_step(network, optimizer, image, mask, labels)


def our_step(precision: str = "no") -> Callable[[], object]:
    recipe = read_recipe("purnet", ["stage3.rates.extractor=1e-6"])
    shown = batch()
    images = {"image": shown["image"].permute(0, 2, 3, 1), "mask": shown["mask"][:, 0]}
    arrays = {name: array.numpy() for name, array in images.items()}
    store = Store(("chelsea", "coffee"), arrays, np.arange(2), {})
    data = StoredImages(store, None)
    task = PurNetTask(load_purnet(checkpoint()), recipe.stage3, data, store)
    AcceleratorState._reset_state()  # two precisions in one process, which no training needs
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    trainer = Trainer(task, recipe.loop("stage3"), accelerator)
    return lambda: trainer.train(shown, lambda step: [str(step)])


def quick_step(plain: bool, frozen: int) -> Callable[[], object]:
    """A stage 1 step of `quick` in bf16, on noise of its size and batch."""
    recipe = read_recipe("quick")
    stage, size = recipe.stage1, recipe.size("stage1")
    random = np.random.default_rng(0)
    arrays = {
        "image": random.integers(0, 256, (stage.batch, size, size, 3), np.uint8),
        "mask": random.integers(0, 2, (stage.batch, size, size), np.uint8) * 255,
    }
    store = Store(tuple(map(str, range(stage.batch))), arrays, np.arange(stage.batch), {})
    network = build_purnet(recipe.network.backbone, recipe.network.width, ())
    task = PurNetTask(network, stage, StoredImages(store, None), store, frozen=frozen)
    AcceleratorState._reset_state()
    trainer = Trainer(task, recipe.loop("stage1"), Accelerator(cpu=True, mixed_precision="bf16"))
    shown = Batches(task.data, stage.batch, 0, 0, 1, torch.device("cpu")).make(0)

    def step() -> None:
        trainer.train(shown, lambda step: [str(step)])

    def plain_step() -> None:
        with patch.object(efficientnet.Conv2d, "_is_slow_to_learn", lambda *_: False):
            step()

    return plain_step if plain else step


QUICK_STEPS = {
    "PyTorch's gradient": (True, 0),
    "depthwise gradient in float32": (False, 0),
    "and blocks frozen": (False, read_recipe("quick").network.frozen),
}
STEPS = {"literal": literal_step, "float32": our_step, "bf16": lambda: our_step("bf16")}


def peak_memory(variant: str) -> float:
    """Gigabytes at the peak of a process of its own that takes two steps."""
    line = [sys.executable, __file__, "--step", variant]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--step", help="take two steps and print the peak of memory")
    arguments = parser.parse_args()
    if arguments.step:
        step = STEPS[arguments.step]()
        step()
        step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
        return
    # First of all: a process starts with its parent's peak.
    memory = {name: round(peak_memory(name), 2) for name in STEPS}
    with torch.inference_mode():
        predicted = take_turns(prediction(), arguments.turns)
    lost = take_turns(loss(), arguments.turns)
    stepped = take_turns({name: make() for name, make in STEPS.items()}, arguments.turns)
    quick = {name: quick_step(*how) for name, how in QUICK_STEPS.items()}
    light = take_turns(quick, arguments.turns, process_time)
    result: dict[str, object] = {"machine": machine("accelerate")}
    for job, seconds, slow in (
        ("prediction at 320 x 320", predicted, "literal"),
        ("structural similarity loss, two pictures", lost, "literal"),
        ("stage 3 step, two pictures", stepped, "literal"),
        ("stage 1 step of quick in bf16, processor time", light, "PyTorch's gradient"),
    ):
        result[job] = {
            "seconds": {name: round(min(times), 4) for name, times in seconds.items()},
            "times as fast": {n: round(ratio(seconds, slow, n), 2) for n in seconds if n != slow},
        }
    result["peak of memory of a stage 3 step, GB"] = memory
    report("purnet", result)


if __name__ == "__main__":
    main()

"""The networks as hqsod runs them, and the published code beside them; `gpu.py` measures them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

import cascadepsp as cascadepsp_benchmark
import purnet as purnet_benchmark
import swinir as swinir_benchmark
from build import random_checkpoint
from hqsod import weights
from hqsod.images import Array
from hqsod.inference import cascade_refiner
from hqsod.inference.refiner import load_refiner
from hqsod.inference.runtime import Runtime
from hqsod.inference.saliency import load_network
from hqsod.inference.torch_pass import TorchPass
from hqsod.inference.upscaler import load_upscaler, mirror_pad
from hqsod.models.cascadepsp import CascadePSP
from hqsod.models.purnet import build_purnet
from hqsod.models.swinir import Block, SwinIR
from hqsod.training.batches import Batches, StoredImages
from hqsod.training.purnet import PurNetTask
from hqsod.training.purnet_recipe import PurNetRecipe
from hqsod.training.recipes import read_recipe
from hqsod.training.store import Store
from hqsod.training.trainer import Trainer
from tests.golden import inputs
from tests.networks import save_tiny
from tests.test_cascadepsp import small as small_cascade
from tests.test_swinir import small as small_swinir

Size = tuple[int, int]
EVERY, AS_PUBLISHED = (-1.0, 2.0), cascade_refiner.SHARES  # the crops that CascadePSP computes
CPU = torch.device("cpu")


@cache
def photo(height: int, width: int) -> Array:
    return np.array(inputs.photo("coffee").resize((width, height)))


@cache
def mask(height: int, width: int) -> Array:
    return np.array(inputs.mask("coffee").resize((width, height)))


class Engine(Protocol):
    """A loaded network; a call takes so many images of a size through it, to their results."""

    network: nn.Module | None

    def __call__(self, size: Size, batch: int) -> Sequence[np.ndarray]: ...


class Upscaling:
    def __init__(self, source: str, runtime: Runtime) -> None:
        self.engine = load_upscaler(source, runtime)
        found = self.engine.network
        self.network = found.module.network if isinstance(found, TorchPass) else None

    def __call__(self, size: Size, batch: int) -> Sequence[np.ndarray]:
        self.engine.budget.pixels = batch * size[0] * size[1]  # in one pass
        return self.engine([photo(*size)] * batch)


class Refining:
    def __init__(self, source: str, runtime: Runtime) -> None:
        self.engine = load_refiner(source, runtime)
        self.network = getattr(self.engine, "_network", None)
        self.shares = EVERY

    def __call__(self, size: Size, batch: int) -> Sequence[np.ndarray]:
        with patch.object(cascade_refiner, "SHARES", self.shares):
            return [self.engine(photo(*size), mask(*size)) for _ in range(batch)]


class Predicting:
    def __init__(self, source: str, runtime: Runtime) -> None:
        self.engine = load_network(source, *runtime)
        self.network = getattr(self.engine, "_network", None)

    def __call__(self, size: Size, batch: int) -> Sequence[np.ndarray]:
        return [255 * saliency for saliency in self.engine(np.stack([photo(*size)] * batch))]


class Subject(NamedTuple):
    """A network and what it is tried on: a size to compare, one to time, in batches."""

    engine: Callable[[str, Runtime], Engine]
    source: str
    small: Size
    large: Size
    batches: tuple[int, ...] = (1,)


def subjects(folder: Path, smoke: bool) -> dict[str, Subject]:
    """The six networks; weights that do not come with hqsod are drawn into the folder."""
    checkpoint = _small_checkpoints(folder) if smoke else _checkpoints(folder)
    found = {
        "SwinIR-L": Subject(Upscaling, checkpoint["swinir"], (48, 64), (300, 400), (1, 2, 8)),
        "CascadePSP": Subject(Refining, checkpoint["cascadepsp"], (300, 300), (1600, 1600)),
        "PurNet": Subject(Predicting, checkpoint["purnet"], (320, 320), (320, 320), (1, 16, 64)),
        "purnet-light": Subject(Predicting, "purnet-light", (352, 352), (352, 352), (1, 16, 64)),
        "hqsod-x4-small": Subject(Upscaling, "hqsod-x4-small", (96, 128), (300, 400), (1, 8)),
        "hqsod-refiner-small": Subject(Refining, "hqsod-refiner-small", (300, 400), (1600, 1600)),
    }
    if not smoke:
        return found
    return {n: s._replace(small=(64, 64), large=(64, 64), batches=(2,)) for n, s in found.items()}


def _checkpoints(folder: Path) -> dict[str, str]:
    torch.save(purnet_benchmark.checkpoint(), folder / "purnet.pth")
    return {
        "swinir": random_checkpoint("swinir", "real_sr_L", folder),
        "cascadepsp": random_checkpoint("cascadepsp", None, folder),
        "purnet": str(folder / "purnet.pth"),
    }


def _small_checkpoints(folder: Path) -> dict[str, str]:
    for name, network in ("swinir", small_swinir()), ("cascadepsp", small_cascade()):
        weights.save(folder / f"{name}.safetensors", network.state_dict(), {})
    save_tiny(folder / "purnet.safetensors")
    return {n: str(folder / f"{n}.safetensors") for n in ("swinir", "cascadepsp", "purnet")}


def compile_parts(network: nn.Module, backend: str) -> None:
    """Put torch.compile before what is worth it: of SwinIR a block, since all are alike."""
    if isinstance(network, SwinIR):
        parts = [(block, "_transform") for block in network.modules() if isinstance(block, Block)]
    elif isinstance(network, CascadePSP):  # what cuDNN does not do: resizing, norms, joining
        parts = [(part, "forward") for part in (network.up_1, network.up_2, network.up_3)]
    else:
        parts = [(network, "forward")]
    for owner, name in parts:
        setattr(owner, name, torch.compile(getattr(owner, name), backend=backend))


def published_swinir(
    size: Size, device: torch.device, precision: torch.dtype
) -> Callable[[], object]:
    """The published SwinIR-L through spandrel."""
    network = swinir_benchmark.load_peer(swinir_benchmark.random_state()).to(device)
    padded = torch.from_numpy(mirror_pad(photo(*size)[None], 8)).permute(0, 3, 1, 2)
    image = padded.to(device) / 255

    @torch.inference_mode()
    def run() -> object:
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            return network(image)

    return run


def published_cascadepsp(
    size: Size, device: torch.device, precision: torch.dtype
) -> Callable[[], object]:
    """CascadePSP's own package, which computes in float32 alone."""
    network = cascadepsp_benchmark.load_peer(cascadepsp_benchmark.random_state(), str(device))
    return lambda: network.refine(photo(*size), mask(*size), L=cascade_refiner.SIDE)


PUBLISHED = {
    ("SwinIR-L", "float32"): published_swinir,
    ("SwinIR-L", "bf16"): published_swinir,
    ("CascadePSP", "float32"): published_cascadepsp,
}


def training(
    device: torch.device, precision: str, batch: int, smoke: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A stage 3 step of the paper's recipe on noise, and the making of a batch for it."""
    small = ["network.backbone=light", "network.width=8", "data.size=64"]
    recipe = read_recipe("purnet", small if smoke else ())
    assert isinstance(recipe, PurNetRecipe)
    assert recipe.stage3 is not None
    side, random = recipe.data.size, np.random.default_rng(0)
    arrays = {
        "image": random.integers(0, 256, (batch, side, side, 3), np.uint8),
        "mask": random.integers(0, 2, (batch, side, side), np.uint8) * 255,
        "superpixels": random.integers(0, recipe.data.superpixels, (batch, side, side), np.int16),
    }
    store = Store(tuple(map(str, range(batch))), arrays, np.arange(batch), {})
    data = StoredImages(store, recipe.data.augmentation)
    network = build_purnet(recipe.network.backbone, recipe.network.width)
    AcceleratorState._reset_state(reset_partial_state=True)  # two precisions in one process
    mixed = "bf16" if precision == "bf16" else "no"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    task = PurNetTask(network, recipe.stage3, data, store)
    trainer = Trainer(task, recipe.loop("stage3"), accelerator)
    batches = Batches(data, batch, 0, 0, 1, device)
    shown = next(batches.ahead(0, 1))
    return (
        lambda: trainer.train(shown, lambda step: [str(step)]),
        lambda: batches.make(0),
    )

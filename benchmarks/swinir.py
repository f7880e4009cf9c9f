"""SwinIR-L on 128 x 128: hqsod beside spandrel, same random weights, in one process.

python benchmarks/swinir.py            # prints, and writes benchmarks/results/swinir.json
OMP_NUM_THREADS=1 python benchmarks/swinir.py --turns 2 --print-only
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time

import numpy as np
import torch
from skimage import data
from torch import Tensor

from common import ROOT, machine, ratio, report, take_turns
from hqsod.models.swinir import COMPUTED, build_swinir
from peers import import_peer
from tests.golden import deterministic

SIDE = 128
PEER = "spandrel_float32"
CONTRAST = 0.25  # the standard deviation of a photograph: random weights' results have another
LEVEL = 1 / 255


def random_state() -> dict[str, Tensor]:
    """A SwinIR-L checkpoint drawn from its names; spandrel reads the sizes of the buffers."""
    file = ROOT / "tests" / "golden" / "swinir_checkpoint_shapes.json"
    shapes = {name: tuple(s) for name, s in json.loads(file.read_text())["real_sr_L"].items()}
    return {
        name: torch.zeros(shape)
        if name.endswith(COMPUTED)
        else torch.from_numpy(deterministic.tensor(name, shape))
        for name, shape in shapes.items()
    }


def load_peer(state: dict[str, Tensor]) -> torch.nn.Module:
    """spandrel's SwinIR-L, with the buffers that it computes itself."""
    architecture = import_peer("spandrel.architectures.SwinIR").SwinIRArch()
    sized = architecture.load(dict(state)).model
    model = type(sized)(**sized.hyperparameters)
    drawn = {name: tensor for name, tensor in state.items() if not name.endswith(COMPUTED)}
    model.load_state_dict(drawn, strict=False)
    return model.eval()


def load_ours(state: dict[str, Tensor], precision: torch.dtype) -> torch.nn.Module:
    network = build_swinir(state)
    network.set_precision(precision)
    return network


def with_autocast(network: torch.nn.Module, image: Tensor) -> Tensor:
    """spandrel's own bf16 stops at a float32 mask for any size but 64 x 64; autocast does not."""
    with torch.autocast("cpu", torch.bfloat16):
        return network(image).float()


def picture() -> Tensor:
    pixels = data.astronaut()[50 : 50 + SIDE, 150 : 150 + SIDE].astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def compare(result: Tensor, reference: Tensor) -> dict[str, float]:
    """How far two results differ, and in levels if their contrast were a photograph's."""
    difference = (result - reference).abs()
    levels = difference * CONTRAST / reference.std() / LEVEL
    return {
        "largest": float(difference.max()),
        "relative_rms": float(difference.square().mean().sqrt() / reference.std()),
        "within_2_levels_at_photographic_contrast": round(float((levels <= 2).float().mean()), 4),
    }


@torch.inference_mode()
def run(turns: int, clock: Callable[[], float]) -> dict[str, object]:
    state, image = random_state(), picture()
    peer = load_peer(state)
    ours = {dtype: load_ours(state, dtype) for dtype in (torch.float32, torch.bfloat16)}
    variants = {
        PEER: lambda: peer(image),
        "hqsod_float32": lambda: ours[torch.float32](image),
        "spandrel_autocast_bf16": lambda: with_autocast(peer, image),
        "hqsod_bf16": lambda: ours[torch.bfloat16](image),
    }
    results: dict[str, Tensor] = {}

    def keeping(name: str) -> Callable[[], None]:
        def run_and_keep() -> None:
            results[name] = variants[name]()

        return run_and_keep

    seconds = take_turns({name: keeping(name) for name in variants}, turns, clock)
    differences = {name: compare(result, results[PEER]) for name, result in results.items()}
    return {
        "what": f"SwinIR-L x4, one picture of {SIDE} x {SIDE}, medians of {turns} turns",
        "clock": clock.__name__,
        "seconds": {name: round(median(times), 3) for name, times in seconds.items()},
        f"times_as_fast_as_{PEER}": {n: round(ratio(seconds, PEER, n), 2) for n in variants},
        f"difference_from_{PEER}": differences,
        "machine": machine("spandrel"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--print-only", action="store_true")
    parser.add_argument("--processor-time", action="store_true", help="needs OMP_NUM_THREADS=1")
    arguments = parser.parse_args()
    clock = process_time if arguments.processor_time else perf_counter
    report("swinir", run(arguments.turns, clock), write=not arguments.print_only)

"""CascadePSP on a 1600 x 1600 canvas: hqsod beside segmentation-refinement, same random weights.

    python benchmarks/cascadepsp.py    # prints, and writes benchmarks/results/cascadepsp.json
    python benchmarks/cascadepsp.py --canvas 700 --side 300 --print-only

The whole canvas runs once for each; one crop of the local step, which is what nearly all the time
goes into, runs in turns. Results are compared over the canvas. Random weights magnify rounding: a
pixel of the global step that lies at one half falls to either side, and moves all around it. That
is why the crop, given the same inputs, is compared as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import ROOT, machine, ratio, report, take_turns
from hqsod.images import Array
from hqsod.inference.cascade_refiner import SIDE, CascadeRefiner
from hqsod.inference.torch_devices import optimise
from hqsod.models.cascadepsp import build_cascadepsp, normalise
from peers import import_peer
from tests.golden import deterministic, inputs

PEER = "segmentation_refinement_float32"
OURS = {"hqsod_float32": torch.float32, "hqsod_bf16": torch.bfloat16}


def random_state() -> dict[str, Tensor]:
    """A checkpoint in the published naming, drawn from its names."""
    shapes = json.loads((ROOT / "tests/golden/cascadepsp_checkpoint_shapes.json").read_text())
    arrays = deterministic.state_dict({name: tuple(shape) for name, shape in shapes.items()})
    return {f"module.{name}": torch.from_numpy(array) for name, array in arrays.items()}


def load_peer(state: dict[str, Tensor], device: str = "cpu") -> object:
    """The package's own refiner, reading its weights from a file as it always does."""
    package = import_peer("segmentation_refinement")
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "model")
        return package.Refiner(device, folder, download_and_check_model=False)


def canvas(side: int) -> tuple[Array, Array]:
    """A photograph and its mask in the middle of a black canvas."""
    layers = []
    for picture, method in ((inputs.photo, Image.BICUBIC), (inputs.mask, Image.NEAREST)):
        photo = picture("coffee")
        height = side * photo.height // photo.width
        layer = Image.new(photo.mode, (side, side))
        layer.paste(photo.resize((side, height), method), (0, (side - height) // 2))
        layers.append(np.array(layer))
    return layers[0], layers[1]


def within(a: Array, b: Array, levels: int) -> float:
    return round(float(np.mean(np.abs(a.astype(int) - b) <= levels)), 5)


def measure(function: Callable[[], Array]) -> tuple[Array, dict[str, float]]:
    """The result, with the seconds of wall and of processor it took."""
    start, before = perf_counter(), _processor()
    result = function()
    seconds = {"wall": perf_counter() - start, "processor": _processor() - before}
    return result, {name: round(value, 1) for name, value in seconds.items()}


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@torch.inference_mode()
def crop_passes(
    peer: object, ours: dict[str, CascadeRefiner], side: int
) -> dict[str, Callable[[], Tensor]]:
    """One crop of the local step, for each of the variants, on the same inputs."""
    safe_forward = import_peer("segmentation_refinement.eval_helper").safe_forward
    image, mask = canvas(side)
    picture = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    signed = torch.from_numpy(mask / np.float32(127.5) - 1)[None, None]
    masks, normalised = (signed, signed * 0.9), normalise(picture)
    passes = {PEER: lambda: safe_forward(peer.model, normalised, *masks)["pred_224"]}
    for name, refiner in ours.items():
        passes[name] = lambda refiner=refiner: refiner._predict(picture, *masks)[1]
    return passes


def run(side: int, crop: int, turns: int) -> dict[str, object]:
    state = random_state()
    peer = load_peer(state)
    cpu = torch.device("cpu")
    ours = {
        name: CascadeRefiner(name, "", optimise(build_cascadepsp(state), cpu, dtype), crop)
        for name, dtype in OURS.items()
    }
    image, mask = canvas(side)
    whole = {name: measure(lambda r=refiner: r(image, mask)) for name, refiner in ours.items()}
    whole[PEER] = measure(lambda: peer.refine(image, mask, L=crop))
    with torch.inference_mode():
        passes = crop_passes(peer, ours, crop)
        results = {name: (run()[0, 0] * 255).byte().numpy() for name, run in passes.items()}
        seconds = take_turns(passes, turns)
    return {
        "what": f"canvas of {side} x {side}, crops of {crop}; crop: medians of {turns} turns",
        "canvas_seconds": {name: spent for name, (_, spent) in whole.items()},
        f"canvas_times_as_fast_as_{PEER}": {
            name: {kind: round(whole[PEER][1][kind] / spent[kind], 2) for kind in spent}
            for name, (_, spent) in whole.items()
        },
        "crop_seconds": {name: round(median(times), 2) for name, times in seconds.items()},
        f"crop_times_as_fast_as_{PEER}": {n: round(ratio(seconds, PEER, n), 2) for n in passes},
        f"share_within_levels_of_{PEER}": {
            name: {
                "canvas_1": within(whole[name][0], whole[PEER][0], 1),
                "crop_1": within(results[name], results[PEER], 1),
                "crop_2": within(results[name], results[PEER], 2),
            }
            for name in ours
        },
        "machine": machine("segmentation-refinement"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--canvas", type=int, default=1600)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--print-only", action="store_true")
    arguments = parser.parse_args()
    report(
        "cascadepsp",
        run(arguments.canvas, arguments.side, arguments.turns),
        write=not arguments.print_only,
    )

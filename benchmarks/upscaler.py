"""An upscaler beside Pillow's bicubic enlargement: PSNR on reduced photographs, and seconds.

    python benchmarks/upscaler.py PHOTOGRAPHS                      # writes results/upscaler.json
    python benchmarks/upscaler.py PHOTOGRAPHS --upscaler FILE --print-only

PHOTOGRAPHS is a folder, such as BSDS500's validation part. Each is cut to multiples of 4, reduced
by 4 with Pillow's bicubic filter, perhaps compressed, and enlarged again. PSNR is that of the Y of
BT.601, in dB, a border of 4 pixels left out. `gain` is what the network has over bicubic.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from common import machine, report, take_turns
from hqsod import images
from hqsod.images import Array
from hqsod.inference.runtime import PRECISIONS, Runtime
from hqsod.inference.upscaler import Upscaler, load_upscaler
from hqsod.training.photo_degradation import Degradation, compress, degrade
from hqsod.training.upscaler import luma_psnr, read_photograph, reduce

SCALE = 4
QUALITIES = (90, 80, 70, 60, 50, 40)


def kinds() -> dict[str, Callable[[Array, int], Array]]:
    """Ways to make a small picture of a photograph, which comes with its number."""
    worn = Degradation(clean=0, compressed=0)
    ways: dict[str, Callable[[Array, int], Array]] = {"clean": lambda x, _: reduce(x, SCALE)}
    for quality in QUALITIES:
        ways[f"jpeg {quality}"] = lambda x, _, q=quality: compress(reduce(x, SCALE), q)
    ways["blur, resize, noise, jpeg"] = lambda x, number: degrade(
        x, SCALE, worn, np.random.default_rng(number)
    )
    return ways


def psnrs(upscaler: Upscaler, paths: list[Path]) -> dict[str, list[float]]:
    """PSNR of every photograph, by the way its small picture was made."""
    found: dict[str, list[float]] = {}
    for number, path in enumerate(paths):
        truth = read_photograph(path, SCALE)
        for kind, way in kinds().items():
            enlarged = upscaler([way(truth, number)])[0]
            found.setdefault(kind, []).append(luma_psnr(enlarged, truth, SCALE))
    return found


def compare(ours: list[float], bicubic: list[float]) -> dict[str, object]:
    gain = np.subtract(ours, bicubic)
    return {
        "bicubic": round(float(np.mean(bicubic)), 3),
        "network": round(float(np.mean(ours)), 3),
        "gain": round(float(gain.mean()), 3),
        "gain_std": round(float(gain.std()), 3),
        "gain_smallest": round(float(gain.min()), 3),
        "better": f"{int((gain > 0).sum())} of {len(gain)}",
    }


def seconds(name: str) -> dict[str, float]:
    """Median seconds for a picture of 400 x 300, in both precisions."""
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    variants = {key: load_upscaler(name, Runtime("cpu", key)) for key in PRECISIONS}
    turns = take_turns({k: lambda u=u: u([picture]) for k, u in variants.items()}, 5)
    return {key: round(median(values), 3) for key, values in turns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--upscaler", default="hqsod-x4-small")
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    paths = images.find_images(options.photographs)
    bicubic = psnrs(load_upscaler("bicubic", Runtime()), paths)
    result: dict[str, object] = {"machine": machine("pillow"), "photographs": len(paths)}
    for key in PRECISIONS:
        ours = psnrs(load_upscaler(options.upscaler, Runtime("cpu", key)), paths)
        result[key] = {kind: compare(ours[kind], bicubic[kind]) for kind in ours}
    result["seconds_400x300"] = seconds(options.upscaler)
    report("upscaler", result, write=not options.print_only)


if __name__ == "__main__":
    main()

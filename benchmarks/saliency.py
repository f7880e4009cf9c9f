"""A saliency network beside methods that learn nothing, on video frames with masks, scene by scene.

    python benchmarks/saliency.py DATA                              # writes results/saliency.json
    python benchmarks/saliency.py DATA --weights FILE --print-only

DATA is a data set's folder, such as DAVIS-2016's validation part; a frame is named after its scene
and number, `davis_SCENE_00020`. Frames of one scene are alike, so what is reported is the mean over
the scenes of each scene's mean, and its standard deviation over the scenes.

`gaussian`: an ellipse of brightness in the middle, whatever the picture. `spectral`: what sticks
out of the picture's spectrum (Hou and Zhang, CVPR 2007). `grabcut`: OpenCV's GrabCut (Rother et
al., SIGGRAPH 2004), told that the object lies within the middle 80 % of the picture.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

import hqsod
from common import machine, report
from hqsod import images, metrics
from hqsod.dataset.layouts import find_pairs
from hqsod.images import Array

SCORES = ("mae", "f_max", "f_weighted", "s_measure", "e_mean")
SPREAD = 0.25  # of the Gaussian, in sides of the picture
RIM = 0.1  # of each side, background to GrabCut
ROUNDS = 5
SPECTRUM = 64  # side of the picture the spectrum is taken of, as in the paper

Method = Callable[[Array], Array]  # (H, W, 3) uint8 RGB to (H, W) uint8


def gaussian(image: Array) -> Array:
    y, x = (np.linspace(-0.5, 0.5, side) / SPREAD for side in image.shape[:2])
    return levels(np.exp(-0.5 * (y[:, None] ** 2 + x[None] ** 2)))


def spectral(image: Array) -> Array:
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (SPECTRUM, SPECTRUM))
    spectrum = np.fft.fft2(small)
    amplitude = np.log(np.abs(spectrum) + 1e-9)
    residual = amplitude - cv2.blur(amplitude, (3, 3))
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    smooth = cv2.GaussianBlur(saliency, (0, 0), 2.5)
    return levels(cv2.resize(smooth, image.shape[1::-1]))


def grabcut(image: Array) -> Array:
    height, width = image.shape[:2]
    box = [round(side * share) for share in (RIM, 1 - 2 * RIM) for side in (width, height)]
    mask, state = np.zeros((height, width), np.uint8), [np.zeros((1, 65)) for _ in range(2)]
    cv2.setRNGSeed(0)
    cv2.grabCut(image, mask, box, *state, ROUNDS, cv2.GC_INIT_WITH_RECT)
    return np.where((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), np.uint8(255), np.uint8(0))


def levels(saliency: np.ndarray) -> Array:
    return np.uint8(saliency / saliency.max() * 255)


def scene(stem: str) -> str:
    return re.sub(r"_\d+$", "", stem).removeprefix("davis_")


def network(weights: str | None) -> Method:
    predict = hqsod.Predictor(weights)
    return lambda image: np.uint8((predict(image) * 255).round())


def by_scene(method: Method, data: Path) -> dict[str, dict[str, float]]:
    scores: dict[str, list[dict[str, float]]] = defaultdict(list)
    for pair in find_pairs(data):
        saliency = method(images.read_image(pair.image))
        scores[scene(pair.stem)].append(metrics.score(saliency, images.read_mask(pair.mask)))
    return {
        name: {score: round(float(np.mean([f[score] for f in frames])), 4) for score in SCORES}
        for name, frames in sorted(scores.items())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", nargs="+", default=["purnet-light"])
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    methods: dict[str, Method] = {f.__name__: f for f in (gaussian, spectral, grabcut)}
    methods |= {name: network(name) for name in options.weights}
    result: dict[str, object] = {"machine": machine("opencv-python-headless")}
    for name, method in methods.items():
        scenes = by_scene(method, options.data)
        table = np.array([list(scores.values()) for scores in scenes.values()])
        ends = zip(SCORES, table.mean(0), table.std(0), strict=True)
        overall = {score: [round(float(m), 4), round(float(s), 4)] for score, m, s in ends}
        result[name] = {"mean and deviation over scenes": overall, "scenes": scenes}
        print(name, overall, flush=True)
    report("saliency", result, write=not options.print_only)


if __name__ == "__main__":
    main()

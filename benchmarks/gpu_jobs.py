"""Each job of hqsod once as users start it, on a device and on the CPU; `gpu.py` calls it.

Both run at the same time, in float32. What is compared is all that they write in numbers: pixels of
every PNG in levels, losses, scores.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from common import ROOT
from serve import service
from tests.training_job import CHANGES

NAMES = ("build", "upscale", "refine", "predict", "train", "evaluate", "serve")
LONGEST = 120.0  # seconds of a job
LEARNS = ["--set", "stage1.steps=1000", "--set", "network.width=16", "--stages", "1"]


def jobs(source: Path, folder: Path, device: str) -> dict[str, Callable[[], None]]:
    """By name what does a job; each writes to `folder / name`, or raises.

    Args:
        source: a data set with images and masks.
        folder: where the results go; scoring reads what predicting wrote.
        device: see `choose_device`.
    """
    images, masks, at = source / "images", source / "masks", ("--device", device)
    changes = [part for change in CHANGES for part in ("--set", change)]
    lines: dict[str, list[object]] = {
        "build": [source, folder / "build", "--recipe", "preview", *at],
        "upscale": [images, "--out", folder / "upscale", "--upscaler", "hqsod-x4-small", *at],
        "refine": [images, masks, "--out", folder / "refine", "--refiner", "hqsod-refiner-small"],
        "predict": [images, "--out", folder / "predict", *at],
        "train": [source, "--out", folder / "train", "--recipe", "quick", "--overfit", 4, *at],
        "evaluate": ["--pred", folder / "predict", "--gt", masks],
    }
    lines["refine"] += at
    lines["train"] += [*changes, *LEARNS]
    for name in lines.keys() - {"evaluate"}:
        lines[name] += ["--precision", "float32"]
    lines["evaluate"] += ["--json", folder / "evaluate" / "scores.json"]
    environment = os.environ | {"HQSOD_CACHE": str(folder / "cache")}
    works = {n: partial(_run, [n, *map(str, line)], environment) for n, line in lines.items()}
    return works | {"serve": partial(_serve, images, folder / "serve", device)}


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hqsod", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing said"]
        raise RuntimeError(f"exit status {done.returncode}: {said[-1]}")


def _serve(images: Path, out: Path, device: str) -> None:
    """Maps of every image from the service."""
    out.mkdir(parents=True)
    with service("--device", device, "--precision", "float32") as port:
        for image in sorted(images.iterdir()):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
            connection.request("POST", "/saliency", image.read_bytes())
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {answer.read(200)!r}")
            (out / f"{image.stem}.png").write_bytes(answer.read())


def compare(name: str, source: Path, folder: Path, device: str) -> dict[str, object]:
    """Run a job on the device and on the CPU; seconds of each, and how far they lie apart."""
    places = list(dict.fromkeys((device, "cpu")))
    with ThreadPoolExecutor() as pool:
        timed = [pool.submit(_seconds, jobs(source, folder / p, p)[name]) for p in places]
        seconds = {p: future.result() for p, future in zip(places, timed, strict=True)}
    apart = difference(folder / device / name, folder / "cpu" / name)
    return {"exit status": 0, "seconds": seconds, "difference from the CPU's": apart}


def _seconds(work: Callable[[], None]) -> float:
    start = perf_counter()
    work()
    return round(perf_counter() - start, 1)


def difference(folder: Path, other: Path) -> dict[str, float]:
    """Largest and mean difference of all numbers in two folders of the same files."""
    one, two = dict(_numbers(folder)), dict(_numbers(other))
    if not one or one.keys() != two.keys():
        raise ValueError(f"files of one alone: {sorted(one.keys() ^ two.keys())[:4]}, {len(one)}")
    apart = np.concatenate([np.abs(one[name] - two[name]).ravel() for name in one])
    return {"largest": float(apart.max()), "mean": float(apart.mean()), "files": len(one)}


def _numbers(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".png":
            yield name, np.asarray(Image.open(path), np.float64)
        elif path.name == "log.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            yield name, np.array([line["loss"] for line in lines if "loss" in line])
        elif path.name == "scores.json":
            yield name, np.array(list(_floats(json.loads(path.read_text()))))


def _floats(tree: object) -> Iterator[float]:
    if isinstance(tree, float):
        yield tree
    elif isinstance(tree, dict | list):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _floats(branch)


os.environ["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

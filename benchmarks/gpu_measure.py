"""What `gpu.py` measures, one method for each kind of case; figures by name come out."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from build import make_pairs
from common import machine
from gpu_networks import (
    AS_PUBLISHED,
    CPU,
    EVERY,
    PUBLISHED,
    Engine,
    Subject,
    compile_parts,
    training,
)
from hqsod.building.engines import load_engine
from hqsod.building.pipeline import build
from hqsod.building.recipes import RECIPES
from hqsod.dataset.layouts import find_pairs
from hqsod.dataset.manifest import Manifest
from hqsod.inference import cascade_refiner
from hqsod.inference.runtime import Runtime, choose_runtime
from hqsod.inference.torch_devices import DTYPES

RATE = "images a second"
DUTS_TR = 10_553  # pairs
COPIES = 8  # of the demo's four pairs, in the build that is timed
COMPILED = {"SwinIR-L": 2, "CascadePSP": 1, "PurNet": 16, "purnet-light": 16}  # and the batch


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def tf32(products: bool, convolutions: bool) -> Iterator[None]:
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend, allowed in zip(backends, (products, convolutions), strict=True):
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def _operations(work: Callable[[], object]) -> int:
    """Of matrix products and convolutions; `floors` counts without gradients."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


class Bench:
    """What is measured, on a device."""

    def __init__(self, device: torch.device, known: dict[str, Subject], smoke: bool) -> None:
        self.device, self.known, self.smoke = device, known, smoke
        self.rates: dict[str, float] = {}
        self.load = lru_cache(1)(self._load)

    def _load(self, name: str, device: torch.device, precision: str) -> Engine:
        release()
        subject = self.known[name]
        return subject.engine(subject.source, Runtime(str(device), precision))

    def about(self) -> dict[str, object]:
        """The device, what a large product and a copy reach on it, and the machine around it."""
        side = 512 if self.smoke else 8192
        for name, dtype, allowed in (
            ("float32", torch.float32, False),
            ("tf32", torch.float32, True),
            ("bf16", torch.bfloat16, False),
        ):
            a = torch.randn(side, side, device=self.device).to(dtype)
            with tf32(allowed, allowed):
                self.rates[name] = 2 * side**3 / self._seconds(lambda a=a: a @ a)
        a = torch.randn(side**2 * 4, device=self.device)
        found: dict[str, object] = {n: round(r / 1e12, 2) for n, r in self.rates.items()}
        found = {"TFLOP/s of products": found}
        found["GB/s of copies"] = round(2 * a.nbytes / self._seconds(a.clone) / 1e9)
        if self.device.type == "cuda":
            card = torch.cuda.get_device_properties(self.device)
            found |= {"device": card.name, "GB": round(card.total_memory / 1e9)}
            found |= {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
        return found | ({} if self.smoke else machine("accelerate", "onnxruntime"))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _seconds(self, work: Callable[[], object], enough: float = 1.0) -> float:
        """Median of the turns that fit about so many seconds, at least two, after one more."""
        turns: list[float] = []
        for turn in range(1 if self.smoke else 200):
            self._wait()
            start = perf_counter()
            work()
            self._wait()
            turns.append(perf_counter() - start)
            if turn > 1 and sum(turns) > enough:
                break
        return median(turns[1:] or turns)

    def speed(
        self, work: Callable[[], object], images: int, precision: str, count: int | None = None
    ) -> dict[str, object]:
        """Images in a second, share of the floor and peak of memory of a call.

        Its operations are counted where their number is not given.
        """
        count = _operations(work) if count is None else count
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = self._seconds(work)
        found: dict[str, object] = {RATE: round(images / seconds, 2)}
        found["operations an image, G"] = round(count / images / 1e9, 1)
        if precision in self.rates:
            found["of the floor"] = round(count / seconds / self.rates[precision], 3)
        if self.device.type == "cuda":
            found["peak, GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        return found

    def network(self, name: str, precision: str, batch: int) -> dict[str, object]:
        subject = self.known[name]
        engine = self.load(name, self.device, precision)
        return self.speed(lambda: engine(subject.large, batch), batch, precision)

    def agreement(self, name: str) -> dict[str, object]:
        """How far a result lies from the CPU's, in levels."""
        size, found = self.known[name].small, {}
        (wanted,) = self.load(name, CPU, "float32")(size, 1)
        for variant in ("float32", "float32 without TF32", "bf16"):
            with tf32(products=False, convolutions=variant == "float32"):
                (got,) = self.load(name, self.device, variant.split()[0])(size, 1)
            apart = np.abs(np.asarray(got, np.float64) - wanted)
            found[variant] = {
                "largest": round(float(apart.max()), 3),
                "mean": round(float(apart.mean()), 4),
                "within a level": round(float((apart <= 1).mean()), 4),
            }
        return found

    def published(self, name: str, precision: str) -> dict[str, object]:
        """The published code, and hqsod on the same crops."""
        size, dtype = self.known[name].large, DTYPES[precision]
        theirs = self._seconds(PUBLISHED[name, precision](size, self.device, dtype))
        release()
        engine = self.load(name, self.device, precision)
        with patch.object(engine, "shares", AS_PUBLISHED, create=True):
            ours = self._seconds(lambda: engine(size, 1))
        rates = {"published": round(1 / theirs, 2), "hqsod": round(1 / ours, 2)}
        return {"one at a time, a second": rates, "times as fast": round(theirs / ours, 2)}

    def compiled(self, name: str) -> dict[str, object]:
        engine, subject = self._load(name, self.device, "bf16"), self.known[name]
        assert engine.network is not None
        batch = COMPILED[name]
        work = partial(engine, subject.large, batch)
        count = _operations(work)  # of compiled code they cannot be counted
        start = perf_counter()
        compile_parts(engine.network, "eager" if self.smoke else "inductor")
        work()
        spent = round(perf_counter() - start, 1)
        return self.speed(work, batch, "bf16", count) | {"compiling, s": spent}

    def training(self, batch: int, precision: str) -> dict[str, object]:
        step, make = training(self.device, precision, batch, self.smoke)
        found = self.speed(step, batch, precision)
        return found | {"images a second, made by one thread": round(batch / self._seconds(make))}

    def build(self, folder: Path) -> dict[str, object]:
        """Pairs in a second, after two to warm up; seconds of each step."""
        make_pairs.main(folder / "source")
        for copy in range(1 if self.smoke else COPIES):
            for path in (folder / "source").glob("*/*.png"):
                target = folder / "many" / path.parent.name / f"{path.stem}{copy}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        sources = {"upscaler": self.known["SwinIR-L"], "refiner": self.known["CascadePSP"]}
        recipe = replace(RECIPES["duts-hq"], **{n: s.source for n, s in sources.items()})
        engine = load_engine(recipe, choose_runtime(str(self.device)))
        pairs = find_pairs(folder / "many")
        with patch.object(cascade_refiner, "SHARES", EVERY):
            build(pairs[:2], folder / "warm", engine)
            start = perf_counter()
            build(pairs, folder / "built", engine)
        rate = len(pairs) / (perf_counter() - start)
        with Manifest.open(folder / "built") as manifest:
            steps = [record.seconds for record in manifest.latest().values()]
        return {
            "pairs a second": round(rate, 2),
            "minutes for DUTS-TR": round(DUTS_TR / rate / 60, 1),
            "seconds a pair": {n: round(median(s[n] for s in steps), 3) for n in steps[0]},
        }

"""What every benchmark here needs: turns, the machine's description, and where results go.

Variants take turns, so that a busy machine is busy for all of them, and what is reported is the
median of the turns' ratios.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LIGHT_NETWORK = ("efficientnet-lite2", 48)  # backbone and width of purnet-light
sys.path.insert(0, str(ROOT))  # for tests.golden and tests.reference


def take_turns(
    variants: Mapping[str, Callable[[], object]],
    turns: int,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each variant in each turn, after one turn to warm up.

    `process_time` as the clock leaves out the time given to others; it needs OMP_NUM_THREADS=1,
    because threads that wait for each other count as busy.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, variant in variants.items():
            start = clock()
            variant()
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """How many times as fast `fast` is as `slow`: the median over the turns."""
    return median(s / f for s, f in zip(seconds[slow], seconds[fast], strict=True))


def machine(*packages: str) -> dict[str, object]:
    """Processor, threads, what its matrix products reach, versions, commit."""
    line = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    known = shutil.which("git") and subprocess.run(line, capture_output=True, text=True).stdout
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "float32_gflops": round(_matmul_gflops(torch.float32)),
        "bf16_gflops": round(_matmul_gflops(torch.bfloat16)),
        "versions": {name: version(name) for name in ("torch", "numpy", *packages)},
        "commit": (known or "").strip(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(": ")[1] for x in lines if x.startswith("model name")), platform.machine())


def _matmul_gflops(dtype: torch.dtype) -> float:
    """What a large square product reaches here: the floor under every network's time."""
    a = torch.randn(2048, 2048).to(dtype)
    best = min(take_turns({"product": lambda: a @ a}, 10)["product"])
    return 2 * 2048**3 / best / 1e9


def report(name: str, result: Mapping[str, object], *, write: bool = True) -> None:
    """Print a result as JSON, and write it to `benchmarks/results/NAME.json`."""
    text = json.dumps(result, indent=1)
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)

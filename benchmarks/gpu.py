"""Everything once on a GPU, in one call of under nine minutes, on a machine without internet.

    python benchmarks/gpu.py                             # writes benchmarks/results/gpu.json
    python benchmarks/gpu.py --only SwinIR build --out FILE
    python benchmarks/gpu.py --device cpu --smoke        # in miniature, to try this script

In order: each network's result on the device against the CPU's in float32; each job as a process of
its own; pairs built in a second; images in a second by precision and batch, beside the published
code where it is installed; training; torch.compile. Weights are drawn from their names and cost
the time that trained ones do; CascadePSP computes every crop, so that its time does not depend on
them. A case that fails is recorded with the last line of its traceback, one for which too little
time is left is named, and the file is written after every case.

`of the floor` is the share of the rate of a large product of matrices in that precision. PyTorch
lets float32 convolutions multiply in TF32, so they can be quicker than that floor.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import gpu_jobs
from build import make_pairs
from common import RESULTS
from gpu_measure import COMPILED, RATE, Bench, release
from gpu_networks import PUBLISHED, subjects
from hqsod.inference.torch_devices import choose_device

AIMS = (  # the best of the cases whose name begins so
    ("SwinIR-L", RATE, "above", 20),
    ("CascadePSP", RATE, "above", 3),
    ("PurNet,", RATE, "above", 1000),
    ("build", "minutes for DUTS-TR", "below", 25),
)
LEARNS = ((2, "bf16"), (16, "bf16"), (2, "float32"), (16, "float32"))  # batch and precision


class Cases:
    """Cases one after the other, within a time; the file holds what is done at any moment."""

    def __init__(self, out: Path, minutes: float, only: list[str], patience: float) -> None:
        self._out, self._only, self._patience = out, only, patience
        self._end = perf_counter() + 60 * minutes
        self.done: dict[str, dict[str, object]] = {}
        self.failed: dict[str, str] = {}
        self.left_out: list[str] = []

    def __call__(self, name: str, seconds: float, work: Callable[[], dict[str, object]]) -> None:
        """Run a case that should take so many seconds, and is stopped when it takes far more."""
        if self._only and not any(word in name for word in self._only):
            return
        start, left = perf_counter(), self._end - perf_counter()
        if left < seconds:
            self.left_out.append(name)
            print(f"{name}: left out, {left:.0f} s are left", flush=True)
        else:
            try:
                with stopped_after(min(left, self._patience * seconds)):
                    self.done[name] = work()
                print(f"{name}: {json.dumps(self.done[name])}", flush=True)
            except (Exception, SystemExit) as error:  # SystemExit: a package is not installed
                at = traceback.extract_tb(error.__traceback__)[-1]
                said = traceback.format_exception_only(error)[-1].strip()
                self.failed[name] = f"{said} ({Path(at.filename).name}, line {at.lineno})"
                print(f"{name}: FAILED, {self.failed[name]}", flush=True)
            self.done.setdefault(name, {})["case took, s"] = round(perf_counter() - start, 1)
            release()
        parts = {"cases": self.done, "failed": self.failed, "left out for time": self.left_out}
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._out.write_text(json.dumps(parts, indent=1) + "\n")


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(cases: Cases, bench: Bench, folder: Path) -> None:
    """Every case, what matters most first; beside each the seconds it should take on a GPU."""
    cases("machine", 15, bench.about)
    for name in bench.known:
        cases(f"{name} against the CPU", 20, partial(bench.agreement, name))
    if bench.smoke:
        make_pairs.LONG_SIDE, gpu_jobs.LONGEST = 64, 1e3
    make_pairs.main(folder / "jobs")
    place = str(bench.device)
    for name in gpu_jobs.NAMES:
        work = partial(gpu_jobs.compare, name, folder / "jobs", folder / "done", place)
        cases(f"hqsod {name}", 20, work)
    cases("build of DUTS-HQ", 30, partial(bench.build, folder / "build"))
    precisions = ("bf16", "float32")
    for name, subject in bench.known.items():
        for precision in precisions:
            for batch in subject.batches:
                work = partial(bench.network, name, precision, batch)
                cases(f"{name}, {precision}, batch {batch}", 5, work)
    for name, precision in PUBLISHED:
        work = partial(bench.published, name, precision)
        cases(f"{name} beside the published code, {precision}", 10, work)
    for batch, precision in LEARNS[:1] if bench.smoke else LEARNS:
        work = partial(bench.training, batch, precision)
        cases(f"PurNet trains, {precision}, batch {batch}", 8, work)
    for name in COMPILED:
        cases(f"{name}, bf16, compiled", 60, partial(bench.compiled, name))


def summarise(cases: Cases) -> None:
    for begins, figure, side, aim in AIMS:
        named = (case for name, case in cases.done.items() if name.startswith(begins))
        found = [case[figure] for case in named if figure in case]
        best = (max if side == "above" else min)(found, default="not measured")
        print(f"{begins.strip(',')}: {figure}: {best}; the aim is {side} {aim}")
    print(f"{len(cases.done) - len(cases.failed)} cases, failed: {cases.failed or 'none'}")
    print(f"left out for time: {', '.join(cases.left_out) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.5, help="for all of it")
    parser.add_argument("--only", nargs="+", default=[], help="cases that hold one of these words")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--smoke", action="store_true", help="small networks and images, one turn")
    options = parser.parse_args()
    device = choose_device(options.device)
    cases = Cases(options.out, options.minutes, options.only, 1e3 if options.smoke else 4.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(cases, Bench(device, subjects(folder, options.smoke), options.smoke), folder)
    summarise(cases)


if __name__ == "__main__":
    main()

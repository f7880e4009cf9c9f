"""What the default network runs on fastest: PyTorch, ONNX Runtime or OpenVINO, on the same weights.

    python benchmarks/engines.py      # prints it, and writes benchmarks/results/engines.json

One image takes turns through every engine that is installed (`pip install openvino` for that one),
at one thread and at two, on a machine left alone and beside a busy process for each core. Of each,
the median milliseconds by the clock and of the processor; threads that spin while they wait cost
the latter. `start` is the processor's seconds from the import to the first map, in a fresh process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from hqsod.weights import Origin

ENGINES = {
    "hqsod": ("onnxruntime", ""),
    "OpenVINO float32": ("openvino", "f32"),
    "OpenVINO bf16": ("openvino", "bf16"),
    "PyTorch float32": ("torch", "float32"),
    "PyTorch bf16": ("torch", "bf16"),
}
THREADS = (1, 2)
TURNS = 15


def load(name: str) -> Callable[[], object]:
    """A call that takes one image through an engine."""
    from hqsod.inference.saliency import DEFAULT, find_weights, load_network

    module, precision = ENGINES[name]
    weights = find_weights(DEFAULT)
    if module == "openvino":
        return _openvino(weights.with_suffix(".onnx"), precision)
    if module == "torch":
        from hqsod.inference.torch_network import TorchNetwork

        network = TorchNetwork(weights, Origin("", ""), "cpu", precision)
    else:
        network = load_network(DEFAULT, "cpu", "auto")
    return lambda: network(_image(network.size))


def _image(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)


def _openvino(file: Path, precision: str) -> Callable[[], object]:
    from hqsod.inference.onnx_network import OnnxNetwork
    from hqsod.inference.onnx_session import OnnxSession

    image = _image(OnnxNetwork(OnnxSession(file), Origin("", "")).size)
    network = openvino_network(file, precision)
    return lambda: network([image.transpose(0, 3, 1, 2).astype(np.float32) / 255])


def openvino_network(file: Path, precision: str) -> Callable[[list[np.ndarray]], object]:
    """An ONNX file as OpenVINO runs it, with as many threads as OpenMP's setting says."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
        "INFERENCE_PRECISION_HINT": precision,
    }
    core = openvino.Core()
    return core.compile_model(core.read_model(file), "CPU", settings)


def take_turns(names: list[str]) -> dict[str, dict[str, float]]:
    """Median milliseconds of each engine."""
    return milliseconds({name: load(name) for name in names}, TURNS)


def milliseconds(calls: dict[str, Callable[[], object]], turns: int) -> dict[str, dict[str, float]]:
    """Medians by the clock and of the processor, after a turn to warm up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            clock, processor = perf_counter(), process_time()
            call()
            if turn:
                times[name].append((perf_counter() - clock, process_time() - processor))
    return {
        name: {
            kind: round(1000 * median(values), 1)
            for kind, values in zip(("clock", "processor"), zip(*taken, strict=True), strict=True)
        }
        for name, taken in times.items()
    }


def start(name: str) -> float:
    """Processor seconds from the import to the first map; for a fresh process."""
    load(name)()
    return round(process_time(), 2)


def _spin() -> None:
    while True:
        pass


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Busy processes beside the block."""
    busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def in_fresh_process(threads: int, function: str, *arguments: object) -> Any:
    """What a function, `module.name`, comes to at so many threads."""
    module, values = function.partition(".")[0], ", ".join(map(repr, arguments))
    code = f"import json, {module}; print(json.dumps({function}({values})))"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-c", code]
    folder = Path(__file__).parent
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure everything."""
    from common import machine, report

    names = [name for name, (module, _) in ENGINES.items() if find_spec(module)]
    result: dict[str, object] = {"machine": machine("onnxruntime")}
    result["start"] = {name: in_fresh_process(1, "engines.start", name) for name in names}
    for load_name, count in (("alone", 0), ("busy", os.cpu_count() or 1)):
        with neighbours(count):
            for threads in THREADS:
                key = f"{load_name}, {threads} threads"
                result[key] = in_fresh_process(threads, "engines.take_turns", names)
    report("engines", result)


if __name__ == "__main__":
    main()

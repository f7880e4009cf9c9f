"""What SwinIR-L and CascadePSP run on fastest: PyTorch as hqsod has it, or what compiles a network.

    python benchmarks/large_engines.py    # prints it, and writes results/large_engines.json

Each network, with random weights, is exported once at a fixed size. Then hqsod, ONNX Runtime,
OpenVINO (`pip install openvino`) and torch.compile take turns over one input, at one thread and at
two, on a machine left alone, and at two beside a busy process for each core. Of each the median
milliseconds by the clock and of the processor, and how far its result is from hqsod's in float32.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import cascadepsp
import swinir
from common import machine, report
from engines import in_fresh_process, milliseconds, neighbours, openvino_network
from gpu_networks import compile_parts
from hqsod.inference.torch_devices import optimise
from hqsod.models import window_attention
from hqsod.models.cascadepsp import build_cascadepsp
from hqsod.models.swinir import build_swinir

CPU = torch.device("cpu")
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
OPENVINO = {"float32": "f32", "bf16": "bf16"}
LOADS = {"alone, 1 thread": (0, 1), "alone, 2 threads": (0, 2), "busy, 2 threads": (2, 2)}
TURNS = 3
WINDOW = 8  # SwinIR's


class LocalPass(nn.Module):
    """What CascadePSP's local step does with a crop."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mask: Tensor, coarse: Tensor) -> Tensor:
        return self.network(image, mask, coarse)[1][1]


def load_swinir(precision: torch.dtype) -> nn.Module:
    network = build_swinir(swinir.random_state()).eval()
    network.set_precision(precision)
    return network


def load_cascade(precision: torch.dtype) -> nn.Module:
    return optimise(build_cascadepsp(cascadepsp.random_state()), CPU, precision)


class Subject(NamedTuple):
    """A network, what computes one result of it, its inputs' channels and side, its exporter."""

    load: Callable[[torch.dtype], nn.Module]
    whole: Callable[[nn.Module], nn.Module]
    channels: tuple[int, ...]
    side: int
    dynamo: bool

    def inputs(self) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        return tuple(torch.rand(1, channels, self.side, self.side) for channels in self.channels)


SUBJECTS = {
    "SwinIR-L, 64 x 64": Subject(load_swinir, lambda network: network, (3,), 64, False),
    "CascadePSP, a pass of 224 x 224": Subject(load_cascade, LocalPass, (3, 1, 1), 224, True),
}


def export(subject: Subject, file: Path) -> None:
    """Write a subject as ONNX. SwinIR's windows have their places as constants in it."""
    network = subject.whole(subject.load(torch.float32))
    window = window_attention.layout((1, subject.side, subject.side), WINDOW, CPU)
    with (
        torch.no_grad(),
        patch("hqsod.models.swinir.layout", return_value=window),
        patch.object(window_attention, "_gather", lambda tokens, there, _: tokens[there]),
    ):
        torch.onnx.export(network, subject.inputs(), file, dynamo=subject.dynamo, opset_version=18)


def with_torch(
    subject: Subject, precision: torch.dtype, compiled: bool
) -> Callable[[], np.ndarray]:
    network = subject.load(precision)
    if compiled:
        compile_parts(network, "inductor")
    whole, inputs = subject.whole(network), subject.inputs()

    @torch.inference_mode()
    def run() -> np.ndarray:
        return whole(*inputs).float().numpy()

    return run


def with_onnxruntime(subject: Subject, file: Path) -> Callable[[], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    feeds = {name: x.numpy() for name, x in zip(names, subject.inputs(), strict=True)}
    return lambda: session.run(None, feeds)[0]


def with_openvino(subject: Subject, file: Path, precision: str) -> Callable[[], np.ndarray]:
    network = openvino_network(file, precision)
    inputs = [x.numpy() for x in subject.inputs()]
    return lambda: network(inputs)[0]


def take_turns(name: str, file: str, turns: int) -> dict[str, dict[str, float]]:
    """Milliseconds of every engine, and its difference; for a fresh process."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    subject, graph = SUBJECTS[name], Path(file)
    calls: dict[str, Callable[[], np.ndarray]] = {}
    for precision, dtype in PRECISIONS.items():
        calls[f"hqsod {precision}"] = with_torch(subject, dtype, compiled=False)
        calls[f"torch.compile {precision}"] = with_torch(subject, dtype, compiled=True)
        if find_spec("openvino"):
            calls[f"OpenVINO {precision}"] = with_openvino(subject, graph, OPENVINO[precision])
    calls["ONNX Runtime float32"] = with_onnxruntime(subject, graph)
    exact = calls["hqsod float32"]()
    taken = milliseconds(calls, turns)
    for engine, call in calls.items():
        off = np.abs(call() - exact).max() / exact.std()
        taken[engine]["largest difference, in deviations"] = float(f"{off:.2g}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    packages = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
    result: dict[str, object] = {"machine": machine(*packages)}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, subject) in enumerate(SUBJECTS.items()):
            file = Path(folder) / f"{number}.onnx"
            export(subject, file)
            result[name] = {}
            for load, (busy, threads) in LOADS.items():
                with neighbours(busy):
                    result[name][load] = in_fresh_process(
                        threads, "large_engines.take_turns", name, str(file), options.turns
                    )
    report("large_engines", result, write=not options.print_only)


if __name__ == "__main__":
    main()

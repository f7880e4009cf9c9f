"""Export to ONNX, checked against PyTorch before the file gets its name.

A saliency network's graph takes `image`, (batch, 3, height, width) float32 RGB in [0, 1] in any
size, normalises it and gives `saliency`, (batch, 1, height, width) float32 probabilities. The
graphs of the small upscaler and the small refiner take and give what `hqsod.models.passes` says.
BatchNorm is folded, weights are kept in 16 bits and computed with in 32. The file's metadata say
which weights it holds, and what must be known of its network.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.helper import make_node, set_model_props
from onnx.numpy_helper import from_array, to_array
from torch import nn

import hqsod
from hqsod import weights
from hqsod.addresses import write_bytes
from hqsod.errors import InputError, OutputError
from hqsod.export_graphs import GraphSource, find_sources
from hqsod.inference.onnx_session import OnnxSession, exported_file
from hqsod.inference.saliency import find_weights


@dataclass(frozen=True, slots=True)
class Exported:
    """A written file, and how its graph compares.

    Attributes:
        file: its path.
        difference: the largest from PyTorch with the same weights of 16 bits, of a scale to 1, or
            in logits.
        rounding: likewise, from PyTorch with the weights that were given.
        compared: on how many inputs.
    """

    file: Path
    difference: float
    rounding: float
    compared: int


def export_onnx(name: str | Path, file: Path | None = None) -> list[Exported]:
    """Write weights as ONNX files: one, or one for each network of a small refiner.

    Args:
        name: see `hqsod.inference.saliency`, or weights of a small upscaler or refiner.
        file: ends in `.onnx`; None for beside the weights, where hqsod looks for it. It appears
            only once the graph has passed the check.

    Raises:
        InputError: another ending.
        WeightsError: see `find_weights`.
        OutputError: the graph computes something other than PyTorch, or cannot be written.
    """
    weights_file = find_weights(name)
    if weights_file.suffix == ".onnx":
        raise InputError(f"{weights_file} is an ONNX file", expected="weights to export")
    if file is not None and file.suffix != ".onnx":
        raise InputError(f"--onnx {file}", expected="a name that ends in .onnx")
    return [
        _export(source, weights_file, exported_file(file or weights_file, source.part))
        for source in find_sources(weights_file)
    ]


def _export(source: GraphSource, weights_file: Path, file: Path) -> Exported:
    """Write one network of a checkpoint."""
    given = source.network
    network = _in_16_bits(copy.deepcopy(given))
    model = _describe(_halved(_graph(source, network)), source, weights_file)
    temporary = file.with_name(f".{file.stem}.part.onnx")
    write_bytes(temporary, model.SerializeToString())
    try:
        difference, rounding = _compare(source, network, temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(file, difference, rounding, len(source.checked))


@torch.no_grad()
def _in_16_bits(network: nn.Module) -> nn.Module:
    """The network, in place, every weight the nearest number that 16 bits hold."""
    for weight in network.parameters():
        weight.copy_(weight.half())
    return network


def _graph(source: GraphSource, network: nn.Module) -> onnx.ModelProto:
    """The network as an ONNX model, free in the axes that its source names."""
    with _quiet():
        program = torch.onnx.export(
            network,
            tuple(map(torch.from_numpy, source.example)),
            input_names=list(source.inputs),
            output_names=[source.output],
            dynamic_shapes=source.free,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is None for the older exporter alone
    return program.model_proto


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in half the bytes: weights that 16 bits hold, and a cast for each."""
    casts = []
    for tensor in model.graph.initializer:
        values = to_array(tensor)
        if values.dtype == np.float32 and (values.astype(np.float16) == values).all():
            short = f"{tensor.name}.16"
            casts.append(make_node("Cast", [short], [tensor.name], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(from_array(values.astype(np.float16), short))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own parts, which a user can do nothing about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled, logging.root.manager.disable = logging.root.manager.disable, logging.WARNING
        try:
            yield
        finally:
            logging.root.manager.disable = disabled


def _describe(model: onnx.ModelProto, source: GraphSource, weights_file: Path) -> onnx.ModelProto:
    """Say what the model is, and drop the exporter's traces of this machine's source files."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
    shapes = (port.type.tensor_type.shape.dim for port in (graph.output[0], graph.input[0]))
    for made, given in zip(*shapes, strict=False):
        # The exporter writes formulas for what is the same.
        if source.keeps_size and made.dim_param and given.dim_param:
            made.dim_param = given.dim_param
    origin = f"{weights_file.name} sha256 {weights.sha256(weights_file)}"
    set_model_props(model, {"hqsod": hqsod.__version__, "weights": origin, **source.about})
    return model


def _compare(source: GraphSource, network: nn.Module, file: Path) -> tuple[float, float]:
    """Run the file and both networks on noise; the largest differences from each.

    Raises:
        OutputError: the file's from the network it was made of is above the source's tolerance.
    """
    graph, difference, rounding = OnnxSession(file), 0.0, 0.0
    for arrays in source.checked:
        got = graph(*arrays)
        with torch.inference_mode():
            wanted, exact = (
                net(*map(torch.from_numpy, arrays)).numpy() for net in (network, source.network)
            )
        if got.shape != wanted.shape or _largest(got, wanted) > source.tolerance:
            raise OutputError(
                f"the exported graph differs from PyTorch for {arrays[0].shape}",
                expected=f"{source.output} {wanted.shape} within {source.tolerance:.1g} of it",
                fix="no file was written; please report this",
            )
        difference = max(difference, _largest(got, wanted))
        rounding = max(rounding, _largest(got, exact))
    return difference, rounding


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, of a scale to 1, infinite where something is no number."""
    scale = 255 if one.dtype == np.uint8 else 1
    difference = float(np.abs(one.astype(np.float32) - other).max()) / scale
    return difference if np.isfinite(difference) else np.inf

"""Export to ONNX, checked against PyTorch before the file gets its name.

The graph takes `image`, (batch, 3, height, width) float32 RGB in [0, 1] in any size, normalises it
and gives `saliency`, (batch, 1, height, width) float32 probabilities. BatchNorm is folded, weights
are kept in 16 bits and computed with in 32. The file's metadata say which weights it holds and the
size they were trained at.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.helper import make_node, set_model_props
from onnx.numpy_helper import from_array, to_array

import hqsod
from hqsod import weights
from hqsod.addresses import write_bytes
from hqsod.errors import InputError, OutputError
from hqsod.inference.onnx_network import INPUT, OUTPUT, open_session
from hqsod.inference.saliency import find_weights
from hqsod.inference.torch_network import load_weights
from hqsod.models.blocks import fold
from hqsod.models.purnet import PurNet

# (batch, height, width) of the noise both are shown: the paper's size, odd, small, wide, tall.
CHECKED = ((1, 320, 320), (2, 33, 47), (3, 64, 96), (1, 7, 200), (1, 75, 16))
TOLERANCE = 1e-4  # of a probability, between the graph and PyTorch with the same weights


@dataclass(frozen=True, slots=True)
class Exported:
    """A written file, and how its graph compares.

    Attributes:
        file: its path.
        difference: the largest, of probabilities, from PyTorch with the same weights of 16 bits.
        rounding: likewise, from PyTorch with the weights that were given.
        shapes: (batch, height, width) of what was compared.
    """

    file: Path
    difference: float
    rounding: float
    shapes: Sequence[tuple[int, int, int]]


def export_onnx(name: str | Path, file: Path | None = None) -> Exported:
    """Write weights as an ONNX file.

    Args:
        name: see `hqsod.inference.saliency`.
        file: ends in `.onnx`; None for beside the weights, where predicting looks for it. It
            appears only once the graph has passed the check.

    Raises:
        InputError: another ending.
        WeightsError: see `find_weights`.
        OutputError: the graph computes something else than PyTorch, or cannot be written.
    """
    source = find_weights(name)
    if source.suffix == ".onnx":
        raise InputError(f"{source} is an ONNX file", expected="weights to export")
    file = source.with_suffix(".onnx") if file is None else file
    if file.suffix != ".onnx":
        raise InputError(f"--onnx {file}", expected="a name that ends in .onnx")
    given, size = load_weights(source)
    network = _in_16_bits(copy.deepcopy(given))
    model = _describe(_halved(_graph(network)), source, size)
    temporary = file.with_name(f".{file.stem}.part.onnx")
    write_bytes(temporary, model.SerializeToString())
    try:
        difference, rounding = _compare(given, network, temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(file, difference, rounding, CHECKED)


@torch.no_grad()
def _in_16_bits(network: PurNet) -> PurNet:
    """The network folded, in place, every weight the nearest number that 16 bits hold."""
    fold(network)
    for weight in network.parameters():
        weight.copy_(weight.half())
    return network


def _graph(network: PurNet) -> onnx.ModelProto:
    """The network as an ONNX model with free batch, height and width."""
    names = ("batch", None, "height", "width")
    free = {axis: torch.export.Dim(name) for axis, name in enumerate(names) if name}
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.rand(2, 3, 96, 160),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(free,),
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


def _describe(model: onnx.ModelProto, source: Path, size: int) -> onnx.ModelProto:
    """Say what the model is, and drop the exporter's traces of this machine's source files."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
    shapes = (port.type.tensor_type.shape.dim for port in (graph.output[0], graph.input[0]))
    for made, given in zip(*shapes, strict=True):
        if given.dim_param:  # the exporter writes the formula it cannot simplify
            made.dim_param = given.dim_param
    about = {
        "hqsod": hqsod.__version__,
        "size": str(size),
        "weights": f"{source.name} sha256 {weights.sha256(source)}",
        "input": f"{INPUT}: (batch, 3, height, width) float32 RGB from 0 to 1",
        "output": f"{OUTPUT}: (batch, 1, height, width) float32 probabilities",
    }
    set_model_props(model, about)
    return model


def _compare(given: PurNet, network: PurNet, file: Path) -> tuple[float, float]:
    """Run the file and both networks on noise; the largest differences from each.

    Raises:
        OutputError: the file's from the network it was made of is above `TOLERANCE`.
    """
    session = open_session(file)
    noise = np.random.default_rng(0)
    difference = rounding = 0.0
    for batch, height, width in CHECKED:
        images = noise.random((batch, 3, height, width), np.float32)
        got = session.run([OUTPUT], {INPUT: images})[0]
        with torch.inference_mode():
            wanted, exact = (net(torch.from_numpy(images)).numpy() for net in (network, given))
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=0, atol=TOLERANCE):
            raise OutputError(
                f"the exported graph differs from PyTorch for a batch of {images.shape}",
                expected=f"saliency maps {wanted.shape} within {TOLERANCE}",
                fix="no file was written; please report this",
            )
        difference = max(difference, float(np.abs(got - wanted).max()))
        rounding = max(rounding, float(np.abs(got - exact).max()))
    return difference, rounding

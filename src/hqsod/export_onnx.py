"""Export to ONNX, checked against PyTorch before the file gets its name.

The graph takes `image`, (batch, 3, height, width) float32 RGB in [0, 1] in any size, normalises it
and gives `saliency`, (batch, 1, height, width) float32 probabilities. The file's metadata say which
weights it holds and the size they were trained at.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import hqsod
from hqsod import weights
from hqsod.addresses import write_bytes
from hqsod.errors import InputError, OutputError, SettingsError
from hqsod.inference.saliency import INPUT, OUTPUT, find_weights, load_weights, open_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

    from hqsod.models.purnet import PurNet

# (batch, height, width) of the noise both are shown: the paper's size, odd, small, wide, tall.
CHECKED = ((1, 320, 320), (2, 33, 47), (3, 64, 96), (1, 7, 200), (1, 75, 16))
TOLERANCE = 1e-4  # of a probability


@dataclass(frozen=True, slots=True)
class Check:
    """How an exported graph compares.

    Attributes:
        difference: the largest, of probabilities.
        shapes: (batch, height, width) of what was compared.
    """

    difference: float
    shapes: Sequence[tuple[int, int, int]]


def export_onnx(name: str | Path, file: Path) -> Check:
    """Write weights as an ONNX file.

    Args:
        name: see `hqsod.inference.saliency`.
        file: ends in `.onnx`; appears only once the graph has passed the check.

    Raises:
        InputError: another ending.
        WeightsError: see `find_weights`.
        SettingsError: packages are missing.
        OutputError: the graph computes something else than PyTorch, or cannot be written.
    """
    if file.suffix != ".onnx":
        raise InputError(f"--onnx {file}", expected="a name that ends in .onnx")
    source = find_weights(name)
    if source.suffix == ".onnx":
        raise InputError(f"{source} is an ONNX file", expected="weights to export")
    network, size = load_weights(source)
    model = _describe(_graph(network), source, size)
    temporary = file.with_name(f".{file.stem}.part.onnx")
    write_bytes(temporary, model.SerializeToString())
    try:
        check = _compare(network, temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return check


def _graph(network: PurNet) -> ModelProto:
    """The network as an ONNX model with free batch, height and width."""
    try:
        import onnxscript  # noqa: F401 (the exporter needs it, and says so less plainly)
    except ImportError as error:
        raise SettingsError(
            f"exporting needs {error.name}, which is not installed", fix="pip install 'hqsod[onnx]'"
        ) from error
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


def _describe(model: ModelProto, source: Path, size: int) -> ModelProto:
    """Say what the model is, and drop the exporter's traces of this machine's source files."""
    from onnx.helper import set_model_props

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


def _compare(network: PurNet, file: Path) -> Check:
    """Run both on noise.

    Raises:
        OutputError: they differ.
    """
    session = open_onnx(file)
    noise = np.random.default_rng(0)
    largest = 0.0
    for batch, height, width in CHECKED:
        images = noise.random((batch, 3, height, width), np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(images)).numpy()
        got = session.run([OUTPUT], {INPUT: images})[0]
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=0, atol=TOLERANCE):
            raise OutputError(
                f"the exported graph differs from PyTorch for a batch of {images.shape}",
                expected=f"saliency maps {wanted.shape} within {TOLERANCE}",
                fix="no file was written; please report this",
            )
        largest = max(largest, float(np.abs(got - wanted).max()))
    return Check(largest, CHECKED)

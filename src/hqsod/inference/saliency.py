"""A saliency network ready to run, from whatever holds its weights.

Weights are a name in the registry, a safetensors file of ours, a published PurNet checkpoint, the
folder of a training run, or an ONNX file, whoever made it. What comes out takes images and gives
saliency maps, whichever of them it was.

Beside `NAME.safetensors`, which training and PyTorch start from, may lie `NAME.onnx`, the same
weights exported. A CPU runs that one: it is faster there, and needs no PyTorch.
"""

from __future__ import annotations

import json
from os.path import isdir
from pathlib import Path
from typing import Protocol

from PIL import Image

from hqsod import extras, machine, weights
from hqsod.errors import SettingsError, WeightsError
from hqsod.images import Array
from hqsod.inference.onnx_network import OnnxNetwork
from hqsod.inference.onnx_preparation import Preparation, file_beside, from_json
from hqsod.inference.onnx_session import OnnxSession, exported
from hqsod.inference.runtime import require_precision_name, saliency_may_be_onnx
from hqsod.inference.scaling import Maps
from hqsod.weights import Origin

DEFAULT = "purnet-light"  # used when no weights are named
# Where a training run keeps what to predict with: when it is done, and best first before that.
RUN_FILES = ("purnet.safetensors", "best.safetensors", "stage*/best.safetensors")


class SaliencyNetwork(Protocol):
    """Images to saliency maps.

    Attributes:
        origin: which weights they are.
        runs_on: where they run, for the user.
        precision: `float32` or `bf16`.
        size: height and width of the images the weights were trained with.
        sizes: all that it takes.
        method: how images are brought to that size, and maps back to their images.
        batch: images that go through at once fastest.
    """

    origin: Origin
    runs_on: str
    precision: str
    size: int
    sizes: range
    method: Image.Resampling
    batch: int

    def __call__(self, images: Array) -> Maps:
        """(B, S, S, 3) uint8 RGB to (B, S, S) float32 probabilities, for any side S in `sizes`.

        Raises:
            WeightsError: what comes out are no numbers.
        """
        ...


def load_network(name: str | Path | None, device: str, precision: str) -> SaliencyNetwork:
    """Load a network.

    Args:
        name: see the module; None for the network that ships with hqsod.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `float32` or `bf16`; an ONNX file runs in float32.

    Raises:
        WeightsError: no such weights, damaged, or of another network.
        SettingsError: a device or precision that is not to be had; PyTorch is needed and missing.
    """
    machine.require_device_name(device)
    require_precision_name(precision)
    path = find_weights(name)
    named = DEFAULT if name is None else str(name)
    known = named if named in weights.registry() else "/".join(path.parts[-2:])
    origin = Origin(known, weights.sha256(path))
    is_onnx = path.suffix.lower() == ".onnx"
    if is_onnx and precision not in ("auto", "float32"):
        raise SettingsError(f"--precision {precision} with {path.name}", expected="auto or float32")
    if is_onnx:
        return OnnxNetwork(OnnxSession(path, device), origin, _preparation(named, path))
    if saliency_may_be_onnx(device, precision) and (graph := exported(path, origin.sha256)):
        return OnnxNetwork(graph, origin)
    extras.require("torch", f"{path.name} on {device} in {precision}")
    from hqsod.inference.torch_network import TorchNetwork  # and with it PyTorch

    return TorchNetwork(path, origin, device, precision)


def about(network: SaliencyNetwork) -> str:
    """Which weights, where they run and in which precision, in a line for the user."""
    return f"{network.origin}; on {network.runs_on}, {network.precision}"


def _preparation(name: str, path: Path) -> Preparation | None:
    """What the registry or the file beside an ONNX file says of it; None where neither does."""
    entry, beside = weights.registry().get(name), file_beside(path)
    if entry is not None and entry.preparation is not None:
        return from_json(json.dumps(entry.preparation), name)
    return from_json(beside.read_bytes(), beside) if beside.is_file() else None


def find_weights(name: str | Path | None) -> Path:
    """The file behind a name, a path or a run's folder; None stands for the default network.

    A name of the registry is that network, whatever lies in this folder.

    Raises:
        WeightsError: there is none.
    """
    name = DEFAULT if name is None else str(name)
    folder = weights.expanded(name)
    if name in weights.registry() or not isdir(folder):  # noqa: PTH112 (see `weights.expanded`)
        return weights.resolve(name)
    for pattern in RUN_FILES:
        if found := sorted(folder.glob(pattern)):
            return found[-1]
    raise WeightsError(
        f"{folder}: no weights",
        expected=f"a training run's folder with one of {', '.join(RUN_FILES)}",
    )

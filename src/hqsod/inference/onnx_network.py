"""A saliency network in ONNX Runtime, from an ONNX file whoever made it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hqsod.errors import WeightsError
from hqsod.images import Array
from hqsod.inference.onnx_preparation import Preparation, Values, are_probabilities, file_beside
from hqsod.inference.onnx_session import OnnxSession, first_line
from hqsod.inference.scaling import SIZES, Maps, trained_size
from hqsod.weights import Origin

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT, OUTPUT = "image", "saliency"  # of the graphs that `hqsod export` writes
INPUT_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class OnnxNetwork:
    """A network in an ONNX file; see `SaliencyNetwork`.

    Args:
        session: the file, opened.
        origin: which weights they are, for the user.
        preparation: of its images and maps; None for a file that `hqsod export` wrote.

    Raises:
        WeightsError: its preparation is not known, or it cannot take images and give maps.
    """

    def __init__(
        self,
        session: OnnxSession,
        origin: Origin,
        preparation: Preparation | None = None,
    ) -> None:
        self.session = session
        path, about, here = session.path, session.about, session.here
        self._preparation = _ours(path, about) if preparation is None else preparation
        self.method = self._preparation.method
        self._input, self._type, self.sizes, one_by_one = _input(path, here)
        self.size = _size(path, self._preparation.size, self.sizes)
        self._output = _output(path, here, self._preparation.output)
        provider = here.get_providers()[0].removesuffix("ExecutionProvider")
        self._most = 1 if one_by_one else None
        self.batch = 1 if one_by_one or provider == "CPU" else 16
        self.origin, self.runs_on = origin, f"ONNX Runtime ({provider})"
        self.precision = "float32"

    def __call__(self, images: Array) -> Maps:
        """See `SaliencyNetwork`."""
        return self._preparation.read(self._run(images), self.session.path)

    def _run(self, images: Array) -> Maps:
        """What the graph gives for (B, S, S, 3) uint8 RGB, (B, H, W) float32."""
        batch = self._preparation.prepare(images, self._type)
        step = self._most or len(batch)
        maps = [self._run_once(batch[at : at + step]) for at in range(0, len(batch), step)]
        return maps[0] if len(maps) == 1 else np.concatenate(maps)

    def _run_once(self, batch: np.ndarray[Any, Any]) -> Maps:
        try:
            maps = np.asarray(self.session.here.run([self._output], {self._input: batch})[0])
        except Exception as error:  # its errors share no base class
            shape = " x ".join(map(str, batch.shape))
            raise WeightsError(
                f"{self.session.path} with {shape}: {first_line(error)}",
                expected="a network that takes these sizes",
                fix="use another --size, or another network",
            ) from error
        if maps.ndim == 4 and maps.shape[1] == 1:
            maps = maps[:, 0]
        if maps.ndim != 3 or len(maps) != len(batch) or not maps.size or maps.dtype.kind != "f":
            raise WeightsError(
                f"{self.session.path}: its output {self._output} is {maps.dtype} {maps.shape}",
                expected=f"({len(batch)}, 1, height, width) of floating point",
                fix="name another output",
            )
        return maps.astype(np.float32, copy=False)


def describe(path: Path, preparation: Preparation) -> tuple[Preparation, float, float]:
    """Run a network once, on noise, to see that it can be used and what its maps hold.

    Args:
        path: an ONNX file.
        preparation: of it; `values` is found out, and so is a `size` that the graph fixes.

    Returns:
        The whole preparation, and the lowest and highest value of the map.

    Raises:
        WeightsError: see `OnnxNetwork`; or neither it nor the graph tells a size.
    """
    network = OnnxNetwork(OnnxSession(path), Origin(path.name, ""), preparation)
    noise = np.random.default_rng(0).integers(0, 256, (1, network.size, network.size, 3), np.uint8)
    maps = network._run(noise)
    values: Values = "probabilities" if are_probabilities(maps) else "logits"
    found = replace(preparation, size=network.size, values=values)
    found.read(maps, path)  # it refuses what is not a number
    return found, float(maps.min()), float(maps.max())


def _ours(path: Path, about: Mapping[str, str]) -> Preparation:
    """What a file of ours wants, whose metadata are given."""
    if "hqsod" not in about:
        raise WeightsError(
            f"{path}: how its images must be prepared is not known",
            expected=f"a file that hqsod export wrote, or {file_beside(path).name} beside it",
            fix=f"say it once: hqsod weights describe {path} --mean R,G,B --std R,G,B",
        )
    return Preparation(size=trained_size(about.get("size", ""), path))


def _input(path: Path, session: InferenceSession) -> tuple[str, type[np.generic], range, bool]:
    """A graph's input: name, type, the sizes it takes, whether it takes one image at a time."""
    ports = session.get_inputs()
    shape = ports[0].shape if len(ports) == 1 else []
    batch, channels, *sides = shape if len(shape) == 4 else (None,) * 4
    fixed = {side for side in sides if isinstance(side, int)}
    if (
        len(shape) != 4
        or channels != 3
        or len(fixed) > 1
        or not fixed.issubset(SIZES)
        or (isinstance(batch, int) and batch != 1)
        or ports[0].type not in INPUT_TYPES
    ):
        came = ", ".join(f"{port.name} {port.type} {port.shape}" for port in ports)
        raise WeightsError(
            f"{path}: it takes {came}",
            expected="one input of (1 or any, 3, side, side), float, float16 or uint8",
        )
    sizes = range(min(fixed), min(fixed) + 1) if fixed else SIZES
    return ports[0].name, INPUT_TYPES[ports[0].type], sizes, batch == 1


def _size(path: Path, told: int | None, sizes: range) -> int:
    """The side of the square, as told or as the graph fixes it."""
    if told is None and len(sizes) > 1:
        raise WeightsError(
            f"{path}: takes images of any size", expected="a size", fix="pass --size"
        )
    size = sizes[0] if told is None else told
    if size not in sizes:
        raise WeightsError(
            f"{path}: size {size}", expected=f"{sizes[0]}, which the graph is fixed to"
        )
    return size


def _output(path: Path, session: InferenceSession, told: str | None) -> str:
    """The name of the output that is the map, the first if none is told."""
    names = [port.name for port in session.get_outputs()]
    if not names:
        raise WeightsError(f"{path}: it gives nothing", expected="an output that is the map")
    if told is not None and told not in names:
        raise WeightsError(f"{path}: output {told!r}", expected=f"one of {', '.join(names)}")
    return names[0] if told is None else told

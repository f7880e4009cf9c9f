"""A saliency network ready to run, from whatever holds its weights.

Weights are a name in the registry, a safetensors file of ours, a published PurNet checkpoint, the
folder of a training run, or an ONNX file that `hqsod export` wrote. What comes out takes pictures
and gives saliency maps, whichever of them it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hqsod import weights
from hqsod.errors import SettingsError, WeightsError
from hqsod.images import Array, resize
from hqsod.inference.devices import (
    choose_device,
    choose_precision,
    describe,
    is_out_of_memory,
    require_device_name,
)
from hqsod.models.blocks import fold
from hqsod.models.purnet import PurNet, load_purnet

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Maps = npt.NDArray[np.float32]

DEFAULT = "purnet-light"  # used when no weights are named
SIZE = 320  # what the paper trains at, for weights that do not say
# Where a training run keeps what to predict with: when it is done, and best first before that.
RUN_FILES = ("purnet.safetensors", "best.safetensors", "stage*/best.safetensors")
INPUT, OUTPUT = "image", "saliency"  # of the ONNX graph
ONNX_KEYS = ("hqsod", "size")  # metadata that tells a file of ours


class SaliencyNetwork(Protocol):
    """Pictures to saliency maps.

    Attributes:
        about: which weights, where they run and in which precision, for the user.
        size: height and width of the pictures the weights were trained with.
        batch: pictures that go through at once fastest.
    """

    about: str
    size: int
    batch: int

    def __call__(self, images: Array) -> Maps:
        """(B, S, S, 3) uint8 RGB to (B, S, S) float32 probabilities, for any side S."""
        ...


def prepare(image: Array, size: int) -> Array:
    """A picture as the network sees it, (size, size, 3) uint8; as in training."""
    return resize(image, (size, size), Image.Resampling.BILINEAR)


def load_network(name: str | Path | None, device: str, precision: str) -> SaliencyNetwork:
    """Load a network.

    Args:
        name: see the module; None for the network that ships with hqsod.
        device: see `choose_device`.
        precision: see `choose_precision`; an ONNX file runs in float32.

    Raises:
        WeightsError: no such weights, damaged, or of another network.
        SettingsError: a device or precision that is not to be had, or ONNX Runtime is missing.
    """
    path = find_weights(name)
    named = DEFAULT if name is None else str(name)
    known = weights.describe(named) if named in weights.registry() else "/".join(path.parts[-2:])
    about = f"{known}; sha256 {weights.sha256(path)[:16]}"  # enough to tell it from another
    if path.suffix == ".onnx":
        if precision not in ("auto", "float32"):
            raise SettingsError(
                f"--precision {precision} with {path.name}", expected="auto or float32"
            )
        return OnnxNetwork(open_onnx(path, device), about)
    where = choose_device(device)
    number = choose_precision(precision, where)
    network, size = load_weights(path)
    return TorchNetwork(_for_inference(network, where, number), size, about, where, number)


def find_weights(name: str | Path | None) -> Path:
    """The file behind a name, a path or a run's folder; None stands for the default network.

    Raises:
        WeightsError: there is none.
    """
    if name is None:
        name = DEFAULT
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return weights.resolve(str(name))
    for pattern in RUN_FILES:
        if found := sorted(folder.glob(pattern)):
            return found[-1]
    raise WeightsError(
        f"{folder}: no weights",
        expected=f"a training run's folder with one of {', '.join(RUN_FILES)}",
    )


def load_weights(path: Path) -> tuple[PurNet, int]:
    """The network in a file, in eval mode, and the size it was trained at.

    Raises:
        WeightsError: damaged, or of another network.
    """
    if path.suffix != ".safetensors":
        return load_purnet(weights.load(path)), SIZE
    state, metadata = weights.load_with_metadata(path)
    return load_purnet(state), int(metadata.get("size", SIZE))


def _for_inference(network: PurNet, device: torch.device, precision: torch.dtype) -> PurNet:
    """The network folded, in the layout convolutions are fastest in, where it is to run."""
    for part in fold(network).children():  # the mean and deviation of pictures stay float32
        part.to(precision)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub's gap
    return network.to(device)


class TorchNetwork:
    """PurNet in PyTorch; see `SaliencyNetwork`.

    Args:
        network: in eval mode, on `device`, its parts in `precision`.
        size: what it was trained at.
        weights: which they are, for the user.
        device: where it runs.
        precision: of its convolutions.
    """

    def __init__(
        self,
        network: PurNet,
        size: int,
        weights: str,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.size, self._network, self._device, self._precision = size, network, device, precision
        self.batch = 16 if device.type == "cuda" else 1
        self.about = f"{weights}; on {describe(device, precision)}"

    @torch.inference_mode()
    def __call__(self, images: Array) -> Maps:
        """See `SaliencyNetwork`.

        Raises:
            SettingsError: the batch does not fit the memory.
        """
        try:
            batch = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2) / 255
            with torch.autocast(
                self._device.type, self._precision, enabled=self._precision != torch.float32
            ):
                maps = self._network(batch)[:, 0].cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise SettingsError(
                f"out of memory on {self._device} with {len(images)} pictures of "
                f"{images.shape[1]} x {images.shape[2]} at once",
                fix="use a smaller --batch or --size, or --device cpu",
            ) from error
        result: Maps = maps.numpy()
        return result


class OnnxNetwork:
    """An exported network in ONNX Runtime; see `SaliencyNetwork`.

    Args:
        session: see `open_onnx`.
        weights: which they are, for the user.
    """

    def __init__(self, session: InferenceSession, weights: str) -> None:
        provider = session.get_providers()[0].removesuffix("ExecutionProvider")
        self._session, self.size = session, int(session.get_modelmeta().custom_metadata_map["size"])
        self.batch = 1 if provider == "CPU" else 16
        self.about = f"{weights}; on ONNX Runtime ({provider}), float32"

    def __call__(self, images: Array) -> Maps:
        """See `SaliencyNetwork`."""
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
        result: Maps = self._session.run([OUTPUT], {INPUT: batch})[0][:, 0]
        return result


def open_onnx(path: Path, device: str = "cpu") -> InferenceSession:
    """Open an ONNX file that hqsod wrote.

    Raises:
        SettingsError: ONNX Runtime is missing, or was built without CUDA and that was asked for;
            or the device is none.
        WeightsError: damaged, or not written by hqsod.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            f"{path} needs ONNX Runtime, which is not installed", fix="pip install 'hqsod[onnx]'"
        ) from error
    require_device_name(device)
    cuda = "CUDAExecutionProvider"
    has_cuda = cuda in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise SettingsError(
            f"--device {device}: this ONNX Runtime was built without CUDA",
            fix="pip install onnxruntime-gpu, or use --device cpu",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    providers = [cuda] * (has_cuda and device != "cpu") + ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(path, options, providers)
    except Exception as error:  # its errors share no base class
        raise WeightsError(
            f"{path}: {str(error).splitlines()[0]}",
            expected="a whole ONNX file",
            fix="export it again",
        ) from error
    if not set(ONNX_KEYS) <= set(session.get_modelmeta().custom_metadata_map):
        raise WeightsError(
            f"{path}: how its pictures must be prepared is not known",
            expected="a file that hqsod export wrote",
        )
    return session

"""A saliency network in ONNX Runtime, from a file that `hqsod export` wrote. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hqsod import machine
from hqsod.errors import SettingsError, WeightsError
from hqsod.images import Array
from hqsod.inference.scaling import Maps, require_numbers, trained_size

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT, OUTPUT = "image", "saliency"  # of the graph
CUDA = "CUDAExecutionProvider"


class OnnxNetwork:
    """An exported network; see `SaliencyNetwork`.

    A session's threads do not live on in a forked process, so each process opens its own.

    Args:
        path: the file.
        weights: which they are, for the user.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: this ONNX Runtime was built without CUDA, and that was asked for.
        WeightsError: the file is damaged, or `hqsod export` did not write it.
    """

    def __init__(self, path: Path, weights: str, device: str = "cpu") -> None:
        self._path, self._device = path, device
        self._open()
        about = self._session.get_modelmeta().custom_metadata_map
        self.size = trained_size(about.get("size", ""), path)
        self.made_from = about.get("weights", "")
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.batch = 1 if provider == "CPU" else 16
        self.about = f"{weights}; on ONNX Runtime ({provider}), float32"

    def _open(self) -> None:
        self._session, self._process = open_session(self._path, self._device), os.getpid()

    def __call__(self, images: Array) -> Maps:
        """See `SaliencyNetwork`."""
        if self._process != os.getpid():
            self._open()
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
        maps: Maps = self._session.run([OUTPUT], {INPUT: batch})[0][:, 0]
        require_numbers(maps, self._path)
        return maps


def open_session(path: Path, device: str = "cpu") -> InferenceSession:
    """Open an ONNX file that hqsod wrote; see `OnnxNetwork`."""
    import onnxruntime

    has_cuda = CUDA in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise SettingsError(
            f"--device {device}: this ONNX Runtime was built without CUDA",
            fix="pip install onnxruntime-gpu, or use --device cpu",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine.threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors alone
    providers = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        providers.insert(0, CUDA)
    try:
        session = onnxruntime.InferenceSession(path, options, providers)
    except Exception as error:  # its errors share no base class
        raise WeightsError(
            f"{path}: {str(error).splitlines()[0]}",
            expected="a whole ONNX file",
            fix="export it again",
        ) from error
    _require_ours(path, session)
    return session


def _require_ours(path: Path, session: InferenceSession) -> None:
    """Check that a graph takes and gives what `hqsod export` writes, and that its file says so.

    Raises:
        WeightsError: it does not.
    """
    ports = (*session.get_inputs(), *session.get_outputs())
    channels = {port.name: port.shape[1] for port in ports if len(port.shape) == 4}
    ours = "hqsod" in session.get_modelmeta().custom_metadata_map
    if not ours or channels != {INPUT: 3, OUTPUT: 1}:
        raise WeightsError(
            f"{path}: how its images must be prepared is not known",
            expected="a file that hqsod export wrote",
        )

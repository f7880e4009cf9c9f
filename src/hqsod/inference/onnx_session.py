"""ONNX files opened in ONNX Runtime. Needs no torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from hqsod import extras, machine
from hqsod.errors import SettingsError, WeightsError
from hqsod.inference.memory import is_out_of_memory
from hqsod.progress import console

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CUDA = "CUDAExecutionProvider"
DIGITS = 9  # of a number that means something
_sessions: WeakSet[InferenceSession] = WeakSet()  # all that are open


def _keep_inherited() -> None:
    """Never end what a fork brought along: its end waits for threads that the fork left behind."""
    for session in _sessions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_keep_inherited)


class OnnxSession:
    """A graph ready to run.

    A session's threads do not live on in a forked process, so each process opens its own.

    Args:
        path: the file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Attributes:
        path: the file.
        about: what the file says of itself.

    Raises:
        SettingsError, WeightsError: see `open_session`.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path, self._device = path, device
        self._open()
        self.about: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map

    def _open(self) -> None:
        self._session, self._process = open_session(self.path, self._device), os.getpid()

    @property
    def here(self) -> InferenceSession:
        """The session of this process."""
        if self._process != os.getpid():
            self._open()
        return self._session

    def is_made_from(self, digest: str) -> bool:
        """Whether the weights that it was exported from have this SHA-256."""
        return self.about.get("weights", "").endswith(digest)

    def number(self, name: str) -> int:
        """A number above 0 that the file tells of its network.

        Raises:
            WeightsError: it tells none.
        """
        told = self.about.get(name, "")
        if not told.isdecimal() or len(told) > DIGITS or not int(told):
            raise WeightsError(
                f"{self.path}: {name} {told[:20]!r}",
                expected="a number above 0, as hqsod export writes it",
                fix="export it again",
            )
        return int(told)

    def __call__(self, *arrays: Any) -> Any:
        """The graph's output for its inputs, in order; see `hqsod.models.passes`.

        Raises:
            WeightsError: it takes others.
        """
        names = [port.name for port in self.here.get_inputs()]
        try:
            return self.here.run(None, dict(zip(names, arrays, strict=True)))[0]
        except Exception as error:  # its errors share no base class
            if is_out_of_memory(error):
                raise
            raise WeightsError(
                f"{self.path}: {first_line(error)}",
                expected="a network as hqsod export writes it",
                fix="export it again",
            ) from error


def exported(path: Path, digest: str, part: str = "") -> OnnxSession | None:
    """What `hqsod export` made of weights and laid beside them, if it did.

    Args:
        path: of the weights.
        digest: their SHA-256; what was made from others is left alone.
        part: of a checkpoint that holds several networks.

    Raises:
        WeightsError: what lies there is damaged, and there is no PyTorch to do without it.
    """
    file = exported_file(path, part)
    if not file.is_file():
        return None
    try:
        session = OnnxSession(file)
    except WeightsError as error:
        if not extras.is_installed("torch"):
            raise
        console.print(f"{error.got}; PyTorch runs {path.name} instead", markup=False)
        return None  # the file may be another program's
    return session if session.is_made_from(digest) else None


def exported_file(path: Path, part: str = "") -> Path:
    """Where it lies."""
    return path.with_suffix(f".{part}.onnx" if part else ".onnx")


def open_session(path: Path, device: str = "cpu") -> InferenceSession:
    """Open an ONNX file.

    Raises:
        SettingsError: CUDA was asked for, and this ONNX Runtime was built without it or does not
            load it.
        WeightsError: the file is damaged.
    """
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
    options.enable_mem_pattern = False  # a plan for each size is kept, and sizes differ with images
    options.log_severity_level = 3  # errors alone
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        providers.insert(0, (CUDA, {"device_id": device.partition(":")[2] or "0"}))
    try:
        session = onnxruntime.InferenceSession(path, options, providers)
        _sessions.add(session)
        _read_texts(session)
    except Exception as error:  # its errors share no base class
        raise WeightsError(
            f"{path}: {first_line(error)}",
            expected="a whole ONNX file",
            fix="fetch or export it again",
        ) from error
    if device.startswith("cuda") and CUDA not in session.get_providers():
        raise SettingsError(
            f"--device {device}: ONNX Runtime could not load its CUDA provider",
            fix="install the CUDA and cuDNN that it was built for, or use --device cpu",
        )
    return session


def _read_texts(session: InferenceSession) -> None:
    """Read what the file says of itself and its ports once; a UnicodeDecodeError if not UTF-8."""
    _ = session.get_modelmeta().custom_metadata_map
    for port in (*session.get_inputs(), *session.get_outputs()):
        _ = (port.name, port.type, port.shape)


def first_line(error: Exception) -> str:
    """What ONNX Runtime says first; the rest is its own affair."""
    return str(error).partition("\n")[0] or type(error).__name__

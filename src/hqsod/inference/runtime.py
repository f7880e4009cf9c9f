"""Where networks run, in which precision, and in which library: PyTorch or ONNX Runtime.

Needs no torch; `torch_devices` has the part that does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hqsod import extras, machine, weights
from hqsod.errors import SettingsError, WeightsError

PRECISIONS = ("float32", "bf16")

# One pass through a network: uint8 arrays in, an array out. `hqsod.models.passes` has the shapes.
Pass = Callable[..., Any]


class Runtime(NamedTuple):
    """A device and a precision.

    Attributes:
        device: `cpu` or `cuda:N`.
        precision: `float32` or `bf16`.
    """

    device: str = "cpu"
    precision: str = "float32"

    @property
    def may_be_onnx(self) -> bool:
        """Whether ONNX Runtime runs here what was exported; all else is PyTorch's."""
        return self == Runtime()

    def __str__(self) -> str:
        return f"{describe_device(self.device)}, {self.precision}"


def choose_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """What the user's words mean on this machine.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `float32` or `bf16`; see `torch_devices.choose_precision`. PyTorch
            computes in bf16, so without it `auto` is float32.

    Raises:
        SettingsError: none of these, a device that is not there or does not start, or PyTorch is
            needed and missing.
    """
    machine.require_device_name(device)
    require_precision_name(precision)
    if device.startswith("cuda") or precision == "bf16":
        extras.require("torch", f"--device {device} --precision {precision}")
    if not extras.is_installed("torch") or (precision == "float32" and not wants_gpu(device)):
        return Runtime()
    from hqsod.inference import torch_devices  # and with it PyTorch

    chosen = torch_devices.choose_device(device)
    dtype = torch_devices.choose_precision(precision, chosen)
    return Runtime(str(chosen), torch_devices.precision_name(dtype))


def require_precision_name(name: str) -> None:
    """Check that `name` is `auto`, `float32` or `bf16`.

    Raises:
        SettingsError: it is not.
    """
    if name not in ("auto", *PRECISIONS):
        raise SettingsError(f"--precision {name}", expected=f"auto, {' or '.join(PRECISIONS)}")


def saliency_may_be_onnx(device: str, precision: str) -> bool:
    """`Runtime.may_be_onnx` for a saliency network, given the user's words.

    With `auto` it runs in float32 on every CPU: ONNX Runtime is faster there than PyTorch in bf16,
    which the upscaler and the refiner are not.
    """
    return precision in ("auto", "float32") and not wants_gpu(device)


def wants_gpu(device: str) -> bool:
    """Whether PyTorch is to run networks on a GPU; it is asked only where there is a driver."""
    if device != "auto":
        return device != "cpu"
    if not machine.has_gpu_driver() or not extras.is_installed("torch"):
        return False
    from hqsod.inference.torch_devices import choose_device  # and with it PyTorch

    return choose_device(device).type == "cuda"


def find_file(name: str, runtime: Runtime, others: Sequence[str] = ()) -> Path:
    """The file behind a name or path; see `weights.resolve`.

    Raises:
        SettingsError: it would have to be fetched, and to run in PyTorch, which is not there.
        WeightsError: it cannot be had, or is an ONNX file, which lies beside weights.
    """
    if name in weights.registry() and not weights.at_hand(name):
        require_torch(name, runtime)
    path = weights.resolve(name, others=others)
    if path.suffix.lower() == ".onnx":
        raise WeightsError(
            f"{name}: an ONNX file", expected="the weights it was exported from, beside it"
        )
    return path


def require_torch(name: str, runtime: Runtime) -> None:
    """Check that PyTorch is there for weights that were not exported, or cannot run so.

    Raises:
        SettingsError: it is not.
    """
    if runtime.may_be_onnx:
        extras.require("torch", f"{name}, which has no ONNX file beside it,")
    extras.require("torch", f"{name} on {runtime.device} in {runtime.precision}")


def describe_device(device: str) -> str:
    """A device and its name for the user."""
    torch = sys.modules.get("torch")
    if torch is None or device == "cpu":
        count = machine.threads() if torch is None else torch.get_num_threads()
        return f"{device} ({count} threads)"
    return f"{device} ({torch.cuda.get_device_name(device)})"

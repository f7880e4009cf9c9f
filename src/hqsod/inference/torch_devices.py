"""Where networks run, and in which precision."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from hqsod.errors import SettingsError
from hqsod.machine import require_device_name
from hqsod.models.resnet import fold_batchnorm

Network = TypeVar("Network", bound=nn.Module)

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def choose_device(name: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device.

    Raises:
        SettingsError: none of these, or a CUDA device that is not there or does not start.
    """
    require_device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        _require_cuda(name)
    return torch.device(name)


def _require_cuda(name: str) -> None:
    """Check that a CUDA device computes.

    Raises:
        SettingsError: it does not.
    """
    if not torch.cuda.is_available():
        raise SettingsError(
            f"--device {name}: PyTorch {torch.__version__} finds no CUDA device",
            expected="a machine with one",
            fix="use --device cpu, or install a CUDA build of PyTorch and its driver",
        )
    try:
        torch.ones(1, device=name)
    except RuntimeError as error:  # a forked process, no such number, a card of another build
        raise SettingsError(
            f"--device {name} does not start: {str(error).splitlines()[0]}",
            fix="use --device cpu, or a device that nvidia-smi shows",
        ) from error


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn `auto`, `float32` or `bf16` into a dtype.

    `auto` is bf16 where the processor or the GPU multiplies it natively, float32 elsewhere: bf16
    without such instructions is emulated, and slower than float32.

    Raises:
        SettingsError: the name is none of these.
    """
    if name == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    if name not in DTYPES:
        raise SettingsError(f"--precision {name}", expected=f"auto, {' or '.join(DTYPES)}")
    return DTYPES[name]


def precision_name(precision: torch.dtype) -> str:
    """What `choose_precision` takes for a dtype."""
    return next(name for name, dtype in DTYPES.items() if dtype is precision)


def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` has bf16 matrix instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def optimise(network: Network, device: torch.device, precision: torch.dtype) -> Network:
    """Make a network fast for inference: in place, and no longer to be trained."""
    fold_batchnorm(network)
    network.to(device, precision)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub's gap
    return network

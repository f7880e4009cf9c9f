"""Upscalers in PyTorch: SwinIR, the small network, and what the library spandrel recognises."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hqsod import weights
from hqsod.errors import WeightsError
from hqsod.inference.runtime import Runtime
from hqsod.inference.torch_devices import DTYPES
from hqsod.inference.torch_pass import TorchPass
from hqsod.inference.upscaler import NetworkUpscaler
from hqsod.models.passes import EnlargePass, Network
from hqsod.models.small_upscaler import build_small_upscaler, is_small_upscaler
from hqsod.models.swinir import build_swinir, is_swinir

WINDOW = 8  # other libraries' networks are given multiples of this


def load_in_torch(name: str, path: Path, digest: str, runtime: Runtime) -> NetworkUpscaler:
    """Load an upscaler from a checkpoint.

    Args:
        name: what users call it.
        path: the checkpoint.
        digest: its SHA-256.
        runtime: where it runs, and its precision.

    Raises:
        WeightsError: damaged, or of no upscaler that is known here.
    """
    state = weights.load(path)
    device, precision = torch.device(runtime.device), DTYPES[runtime.precision]
    if is_swinir(state) or is_small_upscaler(state):
        network = build_swinir(state) if is_swinir(state) else build_small_upscaler(state)
        network.set_precision(precision)
        network.to(device)
        size = network.config
        return torch_upscaler(network, size.scale, size.window, device, name, digest)
    other, scale = _load_with_spandrel(name, state, device, precision)
    return torch_upscaler(other, scale, WINDOW, device, name, digest)


def torch_upscaler(
    network: Network,
    scale: int,
    window: int,
    device: torch.device,
    name: str = "upscaler",
    digest: str = "",
) -> NetworkUpscaler:
    """An upscaler of a network in PyTorch; see `NetworkUpscaler`."""
    enlarge = TorchPass(EnlargePass(network), device)
    return NetworkUpscaler(name, digest, enlarge, scale, window, str(device))


def _load_with_spandrel(
    name: str, state: dict[str, Tensor], device: torch.device, precision: torch.dtype
) -> tuple[Network, int]:
    """A network that the library spandrel recognises, and its scale."""
    try:
        import spandrel
    except (
        ImportError,
        RuntimeError,
    ) as error:  # RuntimeError: its torchvision is of another build
        raise WeightsError(
            f"{name}: no upscaler that hqsod knows, and spandrel, which knows more, does not load "
            f"({str(error).splitlines()[0]})",
            fix="pip install 'hqsod[spandrel]', with a torchvision of the same build as torch",
        ) from error
    try:
        loaded = spandrel.ModelLoader(device).load_from_state_dict(state)
    except (spandrel.UnsupportedModelError, RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{name}: no upscaler that hqsod or spandrel knows",
            expected="SwinIR or another upscaler",
        ) from error
    if not isinstance(loaded, spandrel.ImageModelDescriptor) or loaded.input_channels != 3:
        raise WeightsError(
            f"{name}: a network of another purpose", expected="an upscaler of RGB images"
        )
    if precision is torch.bfloat16 and loaded.supports_bfloat16:
        loaded.bfloat16()
    return lambda images: loaded(images.to(loaded.dtype)).float(), loaded.scale

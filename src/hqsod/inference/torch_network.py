"""A saliency network in PyTorch: on a GPU, in bf16, or from weights that were not exported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hqsod import weights
from hqsod.images import Array
from hqsod.inference.memory import PixelBudget
from hqsod.inference.runtime import describe_device
from hqsod.inference.scaling import BILINEAR, SIZES, Maps, require_numbers, trained_size
from hqsod.inference.torch_devices import (
    choose_device,
    choose_precision,
    precision_name,
)
from hqsod.inference.torch_pass import require_own_process
from hqsod.models.blocks import fold
from hqsod.models.purnet import PurNet, load_purnet
from hqsod.weights import Origin

SIZE = "320"  # what the paper trains at, for weights that do not say


def load_weights(path: Path) -> tuple[PurNet, int]:
    """The network in a file, in eval mode, and the size it was trained at.

    Raises:
        WeightsError: damaged, or of another network.
    """
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        state, metadata = weights.load_with_metadata(path)
    else:
        state = weights.load(path)
    return load_purnet(state), trained_size(metadata.get("size", SIZE), path)


class TorchNetwork:
    """PurNet in PyTorch; see `SaliencyNetwork`.

    Args:
        path: see `load_weights`.
        origin: which weights they are, for the user.
        device: see `choose_device`.
        precision: of the convolutions; see `choose_precision`.

    Raises:
        WeightsError: see `load_weights`.
        SettingsError: a device or precision that is not to be had.
    """

    sizes, method = SIZES, BILINEAR

    def __init__(self, path: Path, origin: Origin, device: str, precision: str) -> None:
        self._device = choose_device(device)
        self._precision = choose_precision(precision, self._device)
        network, self.size = load_weights(path)
        self._network = _for_inference(network, self._device, self._precision)
        self._path, self._process = path, os.getpid()
        self._budget = PixelBudget(str(self._device), "use a smaller --size, or --device cpu")
        self.batch = 16 if self._device.type == "cuda" else 1
        self.origin, self.runs_on = origin, describe_device(str(self._device))
        self.precision = precision_name(self._precision)

    def __call__(self, images: Array) -> Maps:
        """See `SaliencyNetwork`.

        Raises:
            SettingsError: not even one image fits the memory, or the process was forked.
        """
        require_own_process(self._process)
        pixels = images.shape[1] * images.shape[2]
        maps = np.stack(list(self._budget.run(self._predict, list(images), pixels)))
        require_numbers(maps, self._path)
        return maps

    @torch.inference_mode()
    def _predict(self, images: Sequence[Array]) -> list[Maps]:
        """A map for each image in one pass."""
        batch = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2) / 255
        with torch.autocast(
            self._device.type, self._precision, enabled=self._precision != torch.float32
        ):
            return list(self._network(batch)[:, 0].cpu().numpy())


def _for_inference(network: PurNet, device: torch.device, precision: torch.dtype) -> PurNet:
    """The network folded, in the layout convolutions are fastest in, where it is to run."""
    for part in fold(network).children():  # the mean and deviation of images stay float32
        part.to(precision)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub's gap
    return network.to(device)

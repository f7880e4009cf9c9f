"""A pass through a network in PyTorch; see `hqsod.models.passes`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hqsod.images import Array


class TorchPass:
    """A network in PyTorch that takes arrays and gives an array.

    Args:
        module: takes and gives tensors of the arrays' shapes and types.
        device: where it is.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module, self._device = module, device

    @torch.inference_mode()
    def __call__(self, *arrays: Array) -> Array:
        """Arrays that can be written to, as the module wants them, to what it makes of them."""
        tensors = (torch.from_numpy(array).to(self._device) for array in arrays)
        with torch.autocast(self._device.type, enabled=False):
            made: Tensor = self.module(*tensors)
        return np.asarray(made.cpu().numpy())

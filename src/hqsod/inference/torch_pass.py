"""A pass through a network in PyTorch; see `hqsod.models.passes`."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from hqsod.errors import SettingsError
from hqsod.images import Array


class TorchPass:
    """A network in PyTorch that takes arrays and gives an array.

    Args:
        module: takes and gives tensors of the arrays' shapes and types.
        device: where it is.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module, self._device, self._process = module, device, os.getpid()

    @torch.inference_mode()
    def __call__(self, *arrays: Array) -> Array:
        """Run the module on arrays, which must be writable and as it expects them.

        Raises:
            SettingsError: the process was forked.
        """
        require_own_process(self._process)
        tensors = (torch.from_numpy(array).to(self._device) for array in arrays)
        with torch.autocast(self._device.type, enabled=False):
            made: Tensor = self.module(*tensors)
        return np.asarray(made.cpu().numpy())


def require_own_process(process: int) -> None:
    """Check that a network was loaded here: PyTorch would wait for threads that a fork left behind.

    Raises:
        SettingsError: another process loaded it.
    """
    if process != os.getpid():
        raise SettingsError(
            "a network that another process loaded in PyTorch, before this one was forked",
            fix="make a Predictor in each process, or start processes with 'spawn'",
        )

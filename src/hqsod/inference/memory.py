"""Memory that runs out: in one place, for every network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hqsod.errors import SettingsError

Item = TypeVar("Item")
Made = TypeVar("Made")

# What PyTorch, CUDA and its libraries, and ONNX Runtime say when memory runs out.
_MEMORY_RAN_OUT = (
    "you tried to allocate",
    "out of memory",
    "ALLOC_FAILED",
    "Failed to allocate memory",
    "bad_alloc",
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: some have a class of error for it, and all say so in words."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY_RAN_OUT)


class PixelBudget:
    """How many pixels pass through a network at once: fewer once memory has run out.

    Args:
        device: where the network is.
        fix: what the user can do when nothing fits.
        pixels: to begin with; as many as there are by default.

    Attributes:
        pixels: now.
    """

    def __init__(self, device: str, fix: str, pixels: int = sys.maxsize) -> None:
        self.pixels = pixels
        self._device, self._fix = device, fix

    def run(
        self,
        network: Callable[[Sequence[Item]], Sequence[Made]],
        items: Sequence[Item],
        pixels: int,
        least: int | None = None,
    ) -> Iterator[Made]:
        """Pass items through a network, as many at once as fit.

        Args:
            network: makes a result for each of the items that it is given.
            items: all of one size.
            pixels: of an item.
            least: pixels that must fit, of an item that can pass in parts; by default all of it.

        Yields:
            The results in order.

        Raises:
            SettingsError: not even `least` fit.
        """
        done = 0
        while done < len(items):
            part = items[done : done + max(1, self.pixels // pixels)]
            try:
                made = network(part)
            except Exception as error:  # ONNX Runtime's errors share no base class
                if not is_out_of_memory(error):
                    raise
                tried = min(self.pixels, len(part) * pixels)
                self._take_less(tried, least or pixels, error)
            else:
                yield from made
                done += len(part)

    def _take_less(self, tried: int, least: int, error: Exception) -> None:
        """Halve the pixels of a pass, of this item and of all that follow."""
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()
        if tried // 2 < least:
            raise SettingsError(
                f"out of memory on {self._device} with {tried:,} pixels at once",
                expected=f"memory for at least {least:,}",
                fix=self._fix,
            ) from error
        self.pixels = tried // 2

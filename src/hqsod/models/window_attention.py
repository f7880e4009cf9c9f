"""The geometry of shifted-window attention (Liu et al., "Swin Transformer", ICCV 2021).

A map of features, cut into square windows, is held as one list of tokens, and so is the same
map cut into windows that are shifted (cyclically) by half a window. All that happens between
two attentions concerns each token by itself, so tokens can stay in window order: one gather leads
from one order to another, where rolling, cutting, putting together and rolling back takes several
copies.

In a shifted partition the windows of the last row and column hold pixels from opposite edges of the
map, which must not see each other. There are four kinds of windows: 0 inside, 1 in the last
column, 2 in the last row, 3 in the corner. Windows are sorted by kind, so that all windows with one
mask lie together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

KINDS = 4
MASKED = -100.0  # the published network adds this, not minus infinity


@dataclass(frozen=True)
class Layout:
    """The orders of the tokens of one image size.

    Attributes:
        moves: for each two orders ("raster", "regular", "shifted"), the index that leads from the
            first to the second: `tokens[moves["raster", "shifted"]]`.
        counts: for each partition ("regular", "shifted"), how many windows there are of each kind.
    """

    moves: dict[tuple[str, str], Tensor]
    counts: dict[str, list[int]]

    def rearrange(self, tokens: Tensor, start: str, end: str) -> Tensor:
        """Bring (N, C) tokens from one order into another."""
        if start == end:
            return tokens
        return _gather(tokens, self.moves[start, end], self.moves[end, start])


@lru_cache(maxsize=8)
def layout(size: tuple[int, int, int], window: int, device: torch.device) -> Layout:
    """The orders of (batch, height, width) tokens; the sides are multiples of the window."""
    with torch.inference_mode(False):  # what is kept must serve training as well
        raster = torch.arange(size[0] * size[1] * size[2], device=device)
        orders, counts = {"raster": raster}, {}
        regular, _ = _partition(raster.view(size), window)
        orders["regular"], counts["regular"] = regular.flatten(), [len(regular)]
        shift = window // 2
        shifted, kinds = _partition(raster.view(size).roll((-shift, -shift), (1, 2)), window)
        orders["shifted"] = shifted[kinds.argsort(stable=True)].flatten()
        counts["shifted"] = kinds.bincount(minlength=KINDS).tolist()
        moves = {
            (start, end): orders[start].argsort()[orders[end]]
            for start, end in permutations(orders, 2)
        }
    return Layout(moves, counts)


def _partition(tokens: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """(B, H, W) token numbers -> (windows, window ** 2) and the kind of each window."""
    batch, height, width = tokens.shape
    rows, columns = height // window, width // window
    cut = tokens.view(batch, rows, window, columns, window).transpose(2, 3)
    kinds = torch.zeros(batch, rows, columns, dtype=torch.long, device=tokens.device)
    kinds[:, :, -1] += 1
    kinds[:, -1] += 2
    return cut.reshape(-1, window**2), kinds.flatten()


def shift_masks(window: int) -> Tensor:
    """(kinds, window ** 2, window ** 2) float32 to add to the attention of shifted windows."""
    late = torch.arange(window) >= window - window // 2
    column, row = late.repeat(window), late.repeat_interleave(window)
    sides = torch.stack([kind % 2 * column + kind // 2 * 2 * row for kind in range(KINDS)])
    return MASKED * (sides[:, :, None] != sides[:, None, :])


def relative_positions(window: int) -> Tensor:
    """(window ** 2, window ** 2) int64: the row of the bias table for each two tokens."""
    row, column = torch.arange(window**2) // window, torch.arange(window**2) % window
    down, right = (p[:, None] - p[None, :] + window - 1 for p in (row, column))
    return down * (2 * window - 1) + right


class _Rearrange(torch.autograd.Function):
    """A gather whose gradient is a gather too (PyTorch's own would add row by row)."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(there, back)
        return tokens.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        there, back = ctx.saved_tensors
        return _gather(grads[0], back, there), None, None


def _gather(tokens: Tensor, there: Tensor, back: Tensor) -> Tensor:
    gathered: Tensor = _Rearrange.apply(tokens, there, back)  # type: ignore[no-untyped-call]  # a stub's gap
    return gathered

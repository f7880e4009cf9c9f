"""CascadePSP as a `Refiner`.

It works in two steps (Cheng et al., CVPR 2020, section 4.3). The global step refines the whole
image at one size. The local step refines overlapping crops at full size where the global result
has an edge, and averages them. The results equal the published program's; here the crops pass
through the network in batches, as many at once as the memory holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hqsod.errors import InputError, SettingsError
from hqsod.images import Array
from hqsod.inference.memory import PixelBudget
from hqsod.masks import MASK_THRESHOLD
from hqsod.models.cascadepsp import CascadePSP
from hqsod.pairs import require_pair

SIDE = 900  # of the global step's image and of the local step's crops, in pixels
RIM = 16  # of a crop, dropped where it is not the image's border
SHARES = (0.1, 0.9)  # of foreground; a crop outside of them is left as it is
COPIES = 4  # of its widest full-size feature map that a pass holds at its peak
MOST_VALUES = 2**31 - 1  # of a feature map: CUDA's kernels for resizing refuse more

Window = tuple[slice, slice]


class CascadeRefiner:
    """CascadePSP's global and local steps.

    Args:
        name: what users call it.
        digest: SHA-256 of the weights file.
        network: as `optimise` returns it. Resizing and averaging stay float32.
        side: of the global step's image and of the crops, in pixels.
        local: False leaves out the local step.

    Raises:
        SettingsError: `side` leaves nothing of a crop within its rim.
    """

    def __init__(
        self, name: str, digest: str, network: CascadePSP, side: int = SIDE, *, local: bool = True
    ) -> None:
        if side // 2 <= 2 * RIM:
            raise SettingsError(f"crops of {side} pixels", expected=f"at least {4 * RIM + 2}")
        self.name, self.weights = name, digest
        self._network, self._side, self._local = network, side, local
        fix = "close other programs, or use --device cpu or another --refiner"
        self._budget = PixelBudget(str(network.device), fix, pixels_that_fit(network))

    @torch.inference_mode()
    def __call__(self, image: Array, mask: Array) -> Array:
        """Refine a mask; see `Refiner`."""
        require_pair(image, mask)
        pixels = torch.from_numpy(image.copy()).to(self._network.device)
        shown = pixels.permute(2, 0, 1)[None] / 255
        signed = _signed(torch.from_numpy(mask > MASK_THRESHOLD).to(shown)[None, None])
        refined = self._refine(shown, signed)
        levels: Array = (refined[0, 0] * 255).to(torch.uint8).cpu().numpy()  # cut, as published
        return levels

    def _refine(self, image: Tensor, mask: Tensor) -> Tensor:
        """The global step, and the local one if asked for.

        Args:
            image: (1, 3, H, W) in [0, 1].
            mask: (1, 1, H, W) of -1 and 1.

        Returns:
            (1, 1, H, W) in [0, 1].
        """
        size = image.shape[-2:]
        if min(size) * self._side < max(size):
            raise InputError(
                f"an image of {size[1]} x {size[0]} pixels",
                expected=f"a long side of at most {self._side} times the short one",
            )
        small = _fit(image, self._side, "bicubic"), _fit(mask, self._side, "bilinear")
        wanted = (1, 4) if self._local else (1,)

        def refine(one: Sequence[tuple[Tensor, Tensor]]) -> list[dict[int, Tensor]]:
            return [self._predict(*one[0], wanted=wanted)]

        (whole,) = self._budget.run(refine, [small], small[0].shape[-2:].numel())
        if not self._local:
            return _restore(whole[1], size)
        binary = (_resize(whole[1], size) > 0.5).to(image)
        return self._refine_crops(image, binary, _resize(whole[4], size))

    def _refine_crops(self, image: Tensor, binary: Tensor, coarse: Tensor) -> Tensor:
        """The local step.

        Args:
            image: (1, 3, H, W) in [0, 1].
            binary: (1, 1, H, W) of 0 and 1, the global result at stride 1.
            coarse: (1, 1, H, W) in [0, 1], the global result at stride 4.

        Returns:
            (1, 1, H, W) in [0, 1].
        """
        size = image.shape[-2:]
        windows = [
            window
            for window in crop_windows(size, self._side)
            if SHARES[0] <= binary[..., *window].mean() <= SHARES[1]
        ]
        layers = image, _signed(binary), _signed(coarse)

        def refine(some: Sequence[Window]) -> list[Tensor]:
            crops = [torch.cat([layer[..., *window] for window in some]) for layer in layers]
            return list(self._predict(crops[0], crops[1], crops[2])[1])

        total, count = torch.zeros_like(binary), torch.zeros_like(binary)
        pixels = min(self._side, size[0]) * min(self._side, size[1])
        for window, refined in zip(windows, self._budget.run(refine, windows, pixels), strict=True):
            target, kept = without_rim(window, size)
            total[..., *target] += refined[..., *kept]
            count[..., *target] += 1
        return torch.where(count == 0, binary, total / count)

    def _predict(
        self,
        image: Tensor,
        mask: Tensor,
        coarse: Tensor | None = None,
        wanted: Sequence[int] = (1,),
    ) -> dict[int, Tensor]:
        """Probabilities by stride, (B, 1, H, W) float32, of inputs of any size."""
        logits = self._network(image, mask, coarse, wanted)[-1]
        return {stride: torch.sigmoid(x.float()) for stride, x in logits.items()}


def pixels_that_fit(network: CascadePSP) -> int:
    """How many pixels, over all crops, pass the network at once."""
    if network.device.type != "cuda":
        return SIDE * SIDE  # enough to keep a processor busy
    free, _ = torch.cuda.mem_get_info(network.device)
    fit = free // (COPIES * network.widest * network.dtype.itemsize)
    return min(fit, MOST_VALUES // network.widest)


def crop_windows(size: Sequence[int], side: int) -> list[Window]:
    """Where the crops of the local step lie: square, overlapping, shifted inward at the borders.

    Args:
        size: (height, width) of the image.
        side: of the crops; where the image is shorter, so are they.
    """
    step = side // 2 - 2 * RIM
    rows, columns = (
        dict.fromkeys(max(0, min(start, length - side)) for start in range(0, length + 1, step))
        for length in size
    )
    return [
        (slice(top, min(top + side, size[0])), slice(left, min(left + side, size[1])))
        for left in columns
        for top in rows
    ]


def without_rim(window: Window, size: Sequence[int]) -> tuple[Window, Window]:
    """The part of a crop that is kept: its place in the image, and within the crop."""
    target, kept = zip(*map(_without_rim, window, size), strict=True)
    return (target[0], target[1]), (kept[0], kept[1])


def _without_rim(part: slice, length: int) -> tuple[slice, slice]:
    start = part.start + (RIM if part.start > 0 else 0)
    stop = part.stop - (RIM if part.stop < length else 0)
    return slice(start, stop), slice(start - part.start, stop - part.start)


def _signed(x: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return x * 2 - 1


def _fit(x: Tensor, side: int, enlarge: str) -> Tensor:
    """Resize so that the long side is `side`: by area means down, by `enlarge` up."""
    longest = max(x.shape[-2:])
    if longest == side:
        return x
    if longest > side:
        return F.interpolate(x, scale_factor=side / longest, mode="area")
    return F.interpolate(x, scale_factor=side / longest, mode=enlarge, align_corners=False)


def _restore(x: Tensor, size: Sequence[int]) -> Tensor:
    """Undo `_fit` on a result, the way the published global step alone does."""
    if max(x.shape[-2:]) > max(size):
        return F.interpolate(x, size=tuple(size), mode="area")
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)

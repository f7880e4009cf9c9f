"""From pixels to pixels: what one pass through a network takes and gives.

PyTorch runs these modules as they are; exported, they run in ONNX Runtime and need no PyTorch. What
lies around a pass (borders, tiles, batches) is the same for both and knows neither.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hqsod.masks import MASK_THRESHOLD
from hqsod.models.compact_refiner import CompactRefiner
from hqsod.models.contour_refiner import ContourRefiner

Network = Callable[[Tensor], Tensor]


class EnlargePass(nn.Module):
    """Upscaling.

    Args:
        network: takes (B, 3, H, W) float32 in [0, 1] and returns it larger.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to the same, larger."""
        enlarged = self.network(images.permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
        return (enlarged * 255).round_().clamp_(0, 255).to(torch.uint8).contiguous()


class MendPass(nn.Module):
    """The small refiner's first step.

    Args:
        network: sides of what it is shown are multiples of its stride.
    """

    def __init__(self, network: CompactRefiner) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """(H, W, 3) and (H, W) uint8, object above 127, to (H, W) float32 logits."""
        binary = (mask > MASK_THRESHOLD)[None, None].float()
        logits: Tensor = self.network(image.permute(2, 0, 1)[None] / 255, binary)[0, 0]
        return logits


class ContourPass(nn.Module):
    """The small refiner's second step.

    Args:
        network: sides of what it is shown are multiples of its stride.
    """

    def __init__(self, network: ContourRefiner) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """(H, W, 3) and (H, W) uint8 to (H, W) float32 probabilities."""
        layers = (image.permute(2, 0, 1)[None] / 255, mask[None, None] / 255)
        saliency: Tensor = self.network(*layers)[0, 0].sigmoid()
        return saliency

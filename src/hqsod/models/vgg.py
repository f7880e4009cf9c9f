"""VGG-16 as an extractor (Simonyan and Zisserman, ICLR 2015), with torchvision's parameter names.

The classifier and the last pooling are left out. Five maps are read at the strides PurNet's decoder
expects: after pool2, conv3_3, conv4_3, pool4 and conv5_3.
"""

from __future__ import annotations

from torch import Tensor, nn

_LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: pool
_TAPS = (9, 15, 22, 23, 29)  # positions in `features` after which a map is read


class VGG16(nn.Module):
    """The thirteen convolutions of VGG-16.

    Attributes:
        channels: channels of the five feature maps.
        strides: their strides.
    """

    channels = (128, 256, 512, 512, 512)
    strides = (4, 4, 8, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in _LAYOUT:
            if outputs:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            else:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)

    @property
    def blocks(self) -> list[nn.Module]:
        """Its layers one by one, in order."""
        return list(self.features)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to five maps at `strides`, finest first."""
        maps = []
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in _TAPS:
                maps.append(x)
        return tuple(maps)

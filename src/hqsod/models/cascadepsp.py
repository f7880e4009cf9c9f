"""CascadePSP: a network that sharpens a given mask, applied three times to its own results.

Cheng et al., "CascadePSP: Toward Class-Agnostic and Very High-Resolution Segmentation via Global
and Local Refinement", CVPR 2020. Parameter names are those of the published weights (MIT licence);
every size is read from the weights, so that smaller networks of the same form load as well.

It differs in the order of steps, with equal results: a 1 x 1 convolution and bilinear upsampling
commute, so that the convolutions of the pyramid pooling and of the shortcuts run before upsampling,
on fewer positions; where levels meet, their maps are convolved apart and added up, not joined.
Predictions that nobody asks for are not computed. It runs in evaluation mode alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.models.loading import fitting
from hqsod.models.resnet import BasicBlock, Bottleneck, ResNet

POOL_SIZES = (1, 2, 3, 6)
APPLICATIONS = ((8,), (8, 4), (8, 4, 1))  # strides of the predictions of each application
STRIDE = 8  # height and width are brought to multiples of this
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as trained with


class PyramidPooling(nn.Module):
    """Adds what lies around: means over 1, 4, 9 and 36 parts of the image (Zhao et al., 2017)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Conv2d(inputs, inputs, 1, bias=False))
            for size in POOL_SIZES
        )
        self.bottleneck = nn.Conv2d(inputs * (len(POOL_SIZES) + 1), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        *weights, weight = self.bottleneck.weight.chunk(len(POOL_SIZES) + 1, dim=1)
        y = F.conv2d(x, weight, self.bottleneck.bias)
        for stage, stage_weight in zip(self.stages, weights, strict=True):
            y += _resize(F.conv2d(stage(x), stage_weight), y.shape[-2:])
        return F.relu(y, inplace=True)


class UpBlock(nn.Module):
    """Doubles the resolution and joins a finer feature map; two residual steps.

    The first step's norm and activation run in place: a joined copy of the largest maps takes
    longer to make than to use.
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv = _step(inputs + skip, outputs)
        self.conv2 = _step(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, skip, 2 H, 2 W) to (B, outputs, 2 H, 2 W)."""
        size = skip.shape[-2:]
        norm, first = self.conv[0], self.conv[2]
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(first, nn.Conv2d)
        scale, shift = _affine(norm)
        count = x.shape[1]
        above = _resize(x, size).mul_(scale[:, :count]).add_(shift[:, :count]).relu_()
        beside = (skip * scale[:, count:]).add_(shift[:, count:]).relu_()
        y = F.conv2d(above, first.weight[:, :count], first.bias, padding=1)
        y += F.conv2d(beside, first.weight[:, count:], padding=1)
        y = self.conv[3:](y)
        y += _resize(self.shortcut(x), size)
        refined: Tensor = self.conv2(y)
        refined += y
        return refined


class CascadePSP(nn.Module):
    """The refiner.

    Args:
        feats: extractor of six channels with stride 8.
        channels: of the feature maps at strides 8, 4, 2 and 1.
        head: hidden channels of the prediction heads.
    """

    def __init__(self, feats: ResNet, channels: Sequence[int], head: int) -> None:
        super().__init__()
        eighth, quarter, half, full = channels
        stem, first, *_, last = feats.channels
        self.feats = feats
        self.psp = PyramidPooling(last, eighth)
        self.up_1 = UpBlock(eighth, first, quarter)
        self.up_2 = UpBlock(quarter, stem, half)
        self.up_3 = UpBlock(half, 3, full)
        self.final_28 = _head(eighth, head)
        self.final_56 = _head(quarter, head)
        self.final_11 = nn.Conv2d(full + 3, head, 1)
        self.final_21 = nn.Conv2d(head, 1, 1)
        self.widest = half + 3  # channels of the widest feature map of full size

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.final_21.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the parameters are."""
        return self.final_21.weight.dtype

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        coarse: Tensor | None = None,
        wanted: Sequence[int] = APPLICATIONS[-1],
    ) -> list[dict[int, Tensor]]:
        """Refine masks.

        Args:
            image: (B, 3, H, W) float32 in [0, 1], of any size.
            mask: (B, 1, H, W) in [-1, 1].
            coarse: (B, 1, H, W) in [-1, 1]; takes the place of the first application's prediction,
                which is then not made.
            wanted: strides of the predictions of the last application, of 8, 4 and 1.

        Returns:
            For each application its logits by stride, all (B, 1, H, W): stride 8; strides 8 and 4;
            the wanted ones. Without the first of these where `coarse` is given.
        """
        height, width = image.shape[-2:]
        image, mask = self._fill(normalise(image), 0), self._fill(mask, -1)
        outputs = []
        if coarse is None:
            outputs.append(self.application(image, (mask, mask, mask), APPLICATIONS[0]))
            coarse = torch.tanh(outputs[-1][8])
        else:
            coarse = self._fill(coarse, -1)
        outputs.append(self.application(image, (mask, coarse, coarse), APPLICATIONS[1]))
        masks = (mask, *(torch.tanh(outputs[-1][stride]) for stride in APPLICATIONS[1]))
        outputs.append(self.application(image, masks, wanted))
        return [{s: x[..., :height, :width] for s, x in logits.items()} for logits in outputs]

    def _fill(self, layer: Tensor, value: float) -> Tensor:
        """(B, C, H, W) padded to what the strides ask for, as the parameters are."""
        padded = F.pad(layer, padding(layer.shape[-2:]), value=value)
        return padded.to(self.dtype, memory_format=torch.channels_last)

    def application(
        self, image: Tensor, masks: Sequence[Tensor], wanted: Sequence[int]
    ) -> dict[int, Tensor]:
        """Apply the network once.

        Args:
            image: (B, 3, H, W), normalised; H and W multiples of 8.
            masks: three of (B, 1, H, W) in [-1, 1].
            wanted: strides of the predictions to make, of 8, 4 and 1.

        Returns:
            The logits by stride, each resized to (B, 1, H, W).
        """
        half = self.feats.conv1(torch.cat((image, *masks), 1))
        _, quarter, *_, last = self.feats.features(half)
        size, finest = image.shape[-2:], min(wanted)
        logits = {}
        x = self.psp(last)
        if 8 in wanted:
            logits[8] = _resize(self.final_28(x), size)
        if finest <= 4:
            x = self.up_1(x, quarter)
        if 4 in wanted:
            logits[4] = _resize(self.final_56(x), size)
        if finest == 1:
            x = self.up_3(self.up_2(x, half), image)
            x = F.relu(self.final_11(torch.cat((x, image), 1)), inplace=True)
            logits[1] = self.final_21(x)
        return logits


def normalise(image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1], less ImageNet's mean and over its deviation."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (image - mean) / std


def padding(size: Sequence[int]) -> tuple[int, int, int, int]:
    """What to add at the left, right, top and bottom to make both sides multiples of `STRIDE`.

    As published, a side that is a multiple already gets `STRIDE` more where the other is not.
    """
    if not any(side % STRIDE for side in size):
        return 0, 0, 0, 0
    bottom, right = (STRIDE - side % STRIDE for side in size)
    return 0, right, 0, bottom


def build_cascadepsp(state: Mapping[str, Tensor]) -> CascadePSP:
    """The network that `state` was saved from, with its weights, in evaluation mode.

    Args:
        state: parameters and buffers under the published names, with or without `module.` before
            them.

    Raises:
        WeightsError: `state` belongs to another network.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    with fitting("CascadePSP's, under the published names (feats.*, psp.*, up_1.* to final_21.*)"):
        network = CascadePSP(
            _extractor(state),
            [state[f"{part}.weight"].shape[0] for part in ("psp.bottleneck", *_SHORTCUTS)],
            head=state["final_21.weight"].shape[1],
        )
        network.load_state_dict(state)
    return network.eval()


_SHORTCUTS = ("up_1.shortcut", "up_2.shortcut", "up_3.shortcut")


def _extractor(state: Mapping[str, Tensor]) -> ResNet:
    blocks = {tuple(name.split(".")[1:3]) for name in state if name.startswith("feats.layer")}
    width, in_channels = state["feats.conv1.weight"].shape[:2]
    return ResNet(
        block=Bottleneck if "feats.layer1.0.conv3.weight" in state else BasicBlock,
        depths=[sum(layer == f"layer{i}" for layer, _ in blocks) for i in (1, 2, 3, 4)],
        width=width,
        in_channels=in_channels,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        dilate_first=False,
    )


def _step(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
    )


def _head(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, 1, 1)
    )


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm in evaluation mode multiplies by and then adds, each (1, C, 1, 1)."""
    mean, variance, weight, bias = (
        getattr(norm, name).float()[:, None, None]
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    scale = weight * torch.rsqrt(variance + norm.eps)
    return scale[None].to(norm.weight), (bias - mean * scale)[None].to(norm.weight)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)

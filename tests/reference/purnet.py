"""PurNet as its paper describes it, written down word by word: slow, plain, and easy to check.

What hqsod computes is held against this, and its speed too. Nothing is shared or left out: every
side output of every subnetwork is computed; superpixel means are a dense matrix product, picture by
picture and level by level; each loss goes back through the whole graph. Parts carry the published
names, so that a published checkpoint fills it. The extractor is hqsod's, which is torchvision's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.models.resnet import ResNet

STRIDE = {1: 4, 2: 4, 3: 8, 4: 16, 5: 16}
CHANNELS = {1: 64, 2: 256, 3: 512, 4: 1024, 5: 2048}
LEVELS = (1, 2, 3, 4, 5)


def unit(inputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, 128, kernel, padding=kernel // 2),
        nn.BatchNorm2d(128),
        nn.PReLU(),
    ]


def enlarge(channels: int, stride: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(
        channels, channels, 2 * stride, stride=stride, padding=stride // 2, bias=False
    )


def head() -> list[nn.Module]:
    return [*unit(128, 3), *unit(128, 1), nn.Conv2d(128, 1, 1)]


class ReferencePurNet(nn.Module):
    """Normalised pictures (B, 3, H, W), sides multiples of 16, to four lists of five maps.

    They are, finest first: saliency of the purificatory, promotion and rectification subnetworks
    after their sigmoid, and error maps after their tanh.
    """

    def __init__(self) -> None:
        super().__init__()
        backbone = ResNet(strides=(1, 2, 2, 1), dilations=(1, 1, 2, 4))
        self.layer0 = nn.Sequential(
            backbone.conv1, backbone.bn1, nn.ReLU(inplace=True), backbone.maxpool
        )
        self.layer1, self.layer2 = backbone.layer1, backbone.layer2
        self.layer3, self.layer4 = backbone.layer3, backbone.layer4
        parts: dict[str, nn.Module] = {}
        for prefix in ("", "oa_", "ea_"):
            for i in LEVELS:
                parts[f"{prefix}convert{i}"] = nn.Sequential(*unit(CHANNELS[i], 1))
            for i in (2, 5):
                parts[f"{prefix}feature_upscore{i}"] = nn.Sequential(*unit(128, 3))
            for i in (3, 4):
                parts[f"{prefix}feature_upscore{i}"] = nn.Sequential(*unit(128, 3), enlarge(128, 2))
        for i in LEVELS:
            parts[f"feature_upscore{i}_2"] = nn.Sequential(*unit(128, 3))
            for prefix in ("", "oa_"):
                parts[f"{prefix}predict{i}"] = nn.Sequential(*head(), enlarge(1, STRIDE[i]))
            for name in (f"ea_pre_predict{i}_g", f"ea_e_pre_predict{i}_e"):
                parts[name] = nn.Sequential(*unit(128, 3), *unit(128, 3), *unit(128, 1))
            for name in (f"ea_predict{i}_g", f"ea_e_predict{i}_e"):
                parts[name] = nn.Sequential(*head())
                parts[f"{name}_upscore"] = enlarge(1, STRIDE[i])
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        c = {1: self.layer0(x)}
        c[2] = self.layer1(c[1])
        c[3] = self.layer2(c[2])
        c[4] = self.layer3(c[3])
        c[5] = self.layer4(c[4])
        main, promotion, rectification = (self.decode(c, prefix) for prefix in ("", "oa_", "ea_"))
        saliency, promoted, rectified, error = [], [], [], []
        for i in LEVELS:
            a = self.promotion_attention(promotion[i])
            promoted.append(
                torch.sigmoid(self.part(f"oa_predict{i}")(a * promotion[i] + promotion[i]))
            )

            g = self.part(f"ea_pre_predict{i}_g")(rectification[i])
            d = self.part(f"ea_e_pre_predict{i}_e")(rectification[i]) - g
            r = torch.tanh(d)
            for name, features, maps, squash in (
                (f"ea_predict{i}_g", g * r + g, rectified, torch.sigmoid),
                (f"ea_e_predict{i}_e", d, error, torch.tanh),
            ):
                maps.append(squash(self.part(f"{name}_upscore")(self.part(name)(features))))

            p = a * main[i] + main[i]
            p = self.part(f"feature_upscore{i}_2")(p)
            p = r * p + p
            saliency.append(torch.sigmoid(self.part(f"predict{i}")(p)))
        return saliency, promoted, rectified, error

    def part(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def decode(self, c: dict[int, Tensor], prefix: str) -> dict[int, Tensor]:
        f = {5: self.part(f"{prefix}convert5")(c[5])}
        for i in (4, 3, 2, 1):
            above = self.part(f"{prefix}feature_upscore{i + 1}")(f[i + 1])
            f[i] = self.part(f"{prefix}convert{i}")(c[i]) + above
        return f

    @staticmethod
    def promotion_attention(f: Tensor) -> Tensor:
        channels = torch.softmax(F.avg_pool2d(f, f.shape[2:]), dim=1)
        positions = torch.softmax(f.view(*f.shape[:2], -1), dim=2).view(f.shape)
        return channels * positions


def weighted_bce(saliency: Tensor, mask: Tensor, error: Tensor) -> Tensor:
    p = saliency.clamp(1e-4, 1 - 1e-4)
    bce = -(mask * torch.log(p) + (1 - mask) * torch.log(1 - p))
    return ((1 + error.abs()) * bce).mean()


def pair_matrix(saliency: Tensor, regions: Tensor) -> Tensor:
    """(H W) saliency and (K, H W) regions to (K, K) shares of the pairs."""
    means = (regions @ saliency) / regions.sum(1)
    differences = (means[:, None] - means[None, :] + 1) / 2
    return differences / differences.sum()


def structural_similarity_loss(saliency: Tensor, mask: Tensor, superpixels: Tensor) -> Tensor:
    """(B, 1, H, W) maps and (B, 1, H, W) labels, each picture on its own."""
    total = saliency.new_zeros(())
    for b in range(len(saliency)):
        labels = superpixels[b].flatten()
        numbers = torch.arange(int(labels.max()) + 1, device=labels.device)
        regions = (labels[None, :] == numbers[:, None]).float()
        given = pair_matrix(saliency[b].flatten(), regions)
        wanted = pair_matrix(mask[b].flatten(), regions)
        total = total + F.kl_div(given.clamp_min(1e-30).log(), wanted, reduction="sum")
    return total / len(saliency)


def losses(
    outputs: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]],
    mask: Tensor,
    superpixels: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The purificatory, promotion and rectification loss of stage 3."""
    saliency, promoted, rectified, error = outputs
    zero = mask.new_zeros(())
    main, promotion, rectification = zero, zero, zero
    for i in range(5):
        main = main + weighted_bce(saliency[i], mask, error[i])
        main = main + structural_similarity_loss(saliency[i], mask, superpixels)
        promotion = promotion + F.binary_cross_entropy(promoted[i], mask)
        rectification = rectification + F.binary_cross_entropy(rectified[i], mask)
        mistake = (mask - rectified[i].detach() + 1) / 2
        rectification = rectification + F.binary_cross_entropy((error[i] + 1) / 2, mistake)
    return main, promotion, rectification


def training_step(
    network: ReferencePurNet,
    optimizer: torch.optim.Optimizer,
    image: Tensor,
    mask: Tensor,
    superpixels: Tensor,
) -> None:
    """Three full backward passes; of each, the gradients of its own subnetwork are kept."""
    prefixes = ("", "oa_", "ea_")
    kept = {}
    for prefix, loss in zip(prefixes, losses(network(image), mask, superpixels), strict=True):
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        for name, parameter in network.named_parameters():
            if prefix == (name[:3] if name[:3] in prefixes else ""):
                kept[name] = parameter.grad
    for name, parameter in network.named_parameters():
        parameter.grad = kept[name]
    optimizer.step()

"""SwinIR, the upscaler: a convolutional stem, groups of window-attention blocks, an upsampler.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV Workshops 2021
(arXiv 2108.10257). This is the real-world variant (upsampler `nearest+conv`), under the official
names of the weights. It computes what the published network computes, but differs in the way:

- Within a group, tokens stay in window order (see `windows`).
- On a CPU, blocks take a few windows at a time, and everywhere the upsampler takes a few rows, so
  that what they work on stays small: SwinIR-L needs 6.5 kB of memory for each input pixel.
- In bfloat16 the residual stream, the normalisations and the convolutions that touch the image
  stay float32.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hqsod.models.loading import fitting
from hqsod.models.window_attention import layout, relative_positions, shift_masks

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, subtracted from the input and added to the output
COMPUTED = ("relative_position_index", "attn_mask")  # in official files, but computed here
BLOCK = re.compile(r"layers\.(\d+)\.residual_group\.blocks\.\d+\.norm1\.weight$")  # per block
LARGEST_WINDOW = 32  # a checkpoint's window decides how much memory its masks take
WINDOWS_AT_ONCE = {"cpu": 32}  # the CPU's cache holds these; other devices take all at once
# Heads are filled up to multiples of this: for others CUDA has no attention in one kernel, and
# writes every score to memory, in float32. SwinIR-L's heads have 30 channels.
HEAD_MULTIPLE = {"cuda": 8}
ROWS_AT_ONCE = 64  # of the small image, in the upsampler
HALO = 3  # rows of the small image on which the upsampler's result for a row depends (2.5)


@dataclass(frozen=True, slots=True)
class SwinIRConfig:
    """The sizes of a SwinIR.

    Attributes:
        embed: channels of the body, a multiple of every group's heads.
        depths: number of blocks in each residual group.
        heads: attention heads in each residual group.
        window: side of an attention window in pixels.
        mlp_hidden: hidden channels of the blocks' perceptrons.
        closing: convolutions that close a residual group, 1 (`1conv`) or 3 (`3conv`).
        features: channels of the upsampler.
        doublings: how often the upsampler doubles the sides; the scale is 2 to this power.

    Raises:
        ValueError: sizes that contradict each other.
    """

    embed: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 8
    mlp_hidden: int = 480
    closing: int = 1
    features: int = 64
    doublings: int = 2

    def __post_init__(self) -> None:
        if any(heads < 1 or self.embed % heads for heads in self.heads):
            raise ValueError(f"{self.embed} channels for {self.heads} attention heads")
        if not 1 < self.window <= LARGEST_WINDOW:
            raise ValueError(f"a window of {self.window}, expected 2 to {LARGEST_WINDOW}")

    @property
    def scale(self) -> int:
        """How many times larger the result is."""
        return 1 << self.doublings


class SwinIR(nn.Module):
    """The network; `config` holds its sizes. There is no dropout and no stochastic depth."""

    mean: Tensor

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config = config
        embed, features = config.embed, config.features
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.conv_first = _conv(3, embed)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed)})
        self.layers = nn.ModuleList(
            ResidualGroup(config, depth, heads)
            for depth, heads in zip(config.depths, config.heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed)
        self.conv_after_body = _closing(config)
        self.conv_before_upsample = nn.Sequential(
            _conv(embed, features), nn.LeakyReLU(0.01, inplace=True)
        )
        for doubling in range(config.doublings):
            self.add_module(f"conv_up{doubling + 1}", _conv(features, features))
        self.conv_hr = _conv(features, features)
        self.conv_last = _conv(features, 3)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub's gap

    def set_precision(self, dtype: torch.dtype) -> None:
        """Let products and convolutions compute in `dtype`, all but the first and last.

        Their weights are converted here, once. The rest of the network stays float32.
        """
        at_the_ends = (self.conv_first, self.conv_last)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module not in at_the_ends:
                module.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Upscale images whose sides are multiples of the window; padding is the caller's part.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1].

        Returns:
            (B, 3, scale * H, scale * W) float32, not clamped.

        Raises:
            ValueError: a side is no multiple of the window.
        """
        if images.shape[2] % self.config.window or images.shape[3] % self.config.window:
            sides = " x ".join(map(str, images.shape[2:]))
            raise ValueError(f"{sides} pixels, expected multiples of {self.config.window}")
        stem = _convolve(self.conv_first, (images - self.mean).permute(0, 2, 3, 1))
        body = self.patch_embed["norm"](stem)
        for group in self.layers:
            body = group(body)
        body = stem + _convolve(self.conv_after_body, self.norm(body))
        return self._upsample(body.permute(0, 3, 1, 2)) + self.mean

    def _upsample(self, x: Tensor) -> Tensor:
        """(B, embed, H, W) -> (B, 3, scale * H, scale * W), some rows at a time."""
        height, scale, pieces = x.shape[2], self.config.scale, []
        for top in range(0, height, ROWS_AT_ONCE):
            bottom = min(top + ROWS_AT_ONCE, height)
            first, last = max(top - HALO, 0), min(bottom + HALO, height)
            piece = self._upsample_rows(x[:, :, first:last])
            pieces.append(piece[:, :, (top - first) * scale : (bottom - first) * scale])
        return torch.cat(pieces, 2)

    def _upsample_rows(self, x: Tensor) -> Tensor:
        x = self.conv_before_upsample(x.to(self.conv_hr.weight.dtype))
        for doubling in range(self.config.doublings):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.get_submodule(f"conv_up{doubling + 1}")(x)
            x = F.leaky_relu(x, 0.2, inplace=True)
        x = F.leaky_relu(self.conv_hr(x), 0.2, inplace=True)
        pixels: Tensor = self.conv_last(x.to(self.conv_last.weight.dtype))
        return pixels


class ResidualGroup(nn.Module):
    """Blocks, every second one shifted, and closing convolutions, around a skip connection."""

    def __init__(self, config: SwinIRConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.window = config.window
        blocks = [Block(config, heads, index % 2 == 1) for index in range(depth)]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = _closing(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C) float32."""
        batch, height, width, channels = x.shape
        places = layout((batch, height, width), self.window, x.device)
        tokens, place = x.reshape(-1, channels), "raster"
        for block in self.residual_group["blocks"].children():
            assert isinstance(block, Block)
            tokens = places.rearrange(tokens, place, block.partition)
            place = block.partition
            windows = tokens.view(-1, self.window**2, channels)
            tokens = block(windows, places.counts[place]).view(-1, channels)
        tokens = places.rearrange(tokens, place, "raster")
        return x + _convolve(self.conv, tokens.view(x.shape))


class Block(nn.Module):
    """Attention within each window, then a perceptron, both around skip connections."""

    def __init__(self, config: SwinIRConfig, heads: int, shifted: bool) -> None:
        super().__init__()
        self.partition = "shifted" if shifted else "regular"
        self.norm1 = nn.LayerNorm(config.embed)
        self.attn = WindowAttention(config, heads, shifted)
        self.norm2 = nn.LayerNorm(config.embed)
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(config.embed, config.mlp_hidden),
                "fc2": nn.Linear(config.mlp_hidden, config.embed),
            }
        )

    def forward(self, windows: Tensor, counts: list[int]) -> Tensor:
        """Transform (N, window ** 2, C) float32 windows, of which `counts` are of each kind."""
        at_once = WINDOWS_AT_ONCE.get(windows.device.type, len(windows))
        kinds = torch.split(windows, counts)
        return torch.cat(
            [
                self._transform(piece, bias)
                for kind, bias in zip(kinds, self.attn.biases(), strict=True)
                for piece in torch.split(kind, at_once)
                if len(piece)
            ]
        )

    def _transform(self, x: Tensor, bias: Tensor) -> Tensor:
        dtype = bias.dtype
        x = x + self.attn(self.norm1(x).to(dtype), bias)
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x).to(dtype)))
        changed: Tensor = x + self.mlp["fc2"](hidden)
        return changed


class WindowAttention(nn.Module):
    """Multi-head attention within windows, biased by the relative position of two tokens."""

    relative_position_index: Tensor
    masks: Tensor

    def __init__(self, config: SwinIRConfig, heads: int, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(config.embed, 3 * config.embed)
        self.proj = nn.Linear(config.embed, config.embed)
        table = torch.empty((2 * config.window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        index = relative_positions(config.window)
        masks = shift_masks(config.window)[: None if shifted else 1]
        self.register_buffer("relative_position_index", index, persistent=False)
        self.register_buffer("masks", masks, persistent=False)
        self._kept: tuple[tuple[object, ...], Tensor, Tensor] | None = None

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend within (N, L, C) windows; `bias` is (heads, L, L)."""
        windows, length, channels = x.shape
        size = channels // self.heads
        qkv = self.qkv(x).view(windows, length, 3, self.heads, size)
        if filling := -size % HEAD_MULTIPLE.get(x.device.type, 1):
            qkv = F.pad(qkv, (0, filling))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mask = bias.expand(windows, -1, -1, -1)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=size**-0.5
        )[..., :size]
        mixed: Tensor = self.proj(attended.transpose(1, 2).reshape(x.shape))
        return mixed

    def biases(self) -> Tensor:
        """(kinds, heads, L, L): position bias plus mask, kept until the weights change."""
        table, dtype = self.relative_position_bias_table, self.qkv.weight.dtype
        if torch.is_grad_enabled() and table.requires_grad:
            return self._biases(dtype)
        version = 0 if table.is_inference() else table._version
        state = (table.data_ptr(), version, table.device, dtype)
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                # With the table kept too, no other can come to lie at its address.
                self._kept = state, self._biases(dtype), table.detach()
        return self._kept[1]

    def _biases(self, dtype: torch.dtype) -> Tensor:
        position = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        return (position + self.masks[:, None]).to(dtype)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _closing(config: SwinIRConfig) -> nn.Module:
    """The convolution, or the bottleneck of three, that closes a group and the body."""
    if config.closing == 1:
        return _conv(config.embed, config.embed)
    narrow = config.embed // 4
    return nn.Sequential(
        _conv(config.embed, narrow),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(narrow, narrow, 1),
        nn.LeakyReLU(0.2, inplace=True),
        _conv(narrow, config.embed),
    )


def _convolve(convolution: nn.Module, x: Tensor) -> Tensor:
    """Apply to (B, H, W, C) float32, in the precision of the weights; channels stay last."""
    dtype = next(convolution.parameters()).dtype
    result: Tensor = convolution(x.permute(0, 3, 1, 2).to(dtype)).permute(0, 2, 3, 1)
    return result.to(x.dtype)


def is_swinir(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is meant for this network: `build_swinir` may still refuse it."""
    return any(map(BLOCK.match, state)) and {"conv_up1.weight", "conv_hr.weight"} <= state.keys()


def build_swinir(state: Mapping[str, Tensor]) -> SwinIR:
    """The network of a checkpoint, its sizes read from the shapes, the weights loaded.

    Args:
        state: tensors under the official names, such as `layers.0.residual_group.blocks.0...`.

    Raises:
        WeightsError: no SwinIR, or one with another upsampler than `nearest+conv`.
    """
    state = {name: value for name, value in state.items() if not name.endswith(COMPUTED)}
    with fitting("a real-world SwinIR under its official names, upsampler nearest+conv"):
        network = SwinIR(_read_config({name: tuple(value.shape) for name, value in state.items()}))
        network.load_state_dict(state)
    return network.eval()


def _read_config(shapes: Mapping[str, tuple[int, ...]]) -> SwinIRConfig:
    blocks = Counter(int(match[1]) for name in shapes if (match := BLOCK.match(name)))
    groups = range(len(blocks))
    table = "layers.{}.residual_group.blocks.0.attn.relative_position_bias_table"
    return SwinIRConfig(
        embed=shapes["conv_first.weight"][0],
        depths=tuple(blocks[group] for group in groups),
        heads=tuple(shapes[table.format(group)][1] for group in groups),
        window=(round(shapes[table.format(0)][0] ** 0.5) + 1) // 2,
        mlp_hidden=shapes["layers.0.residual_group.blocks.0.mlp.fc1.weight"][0],
        closing=3 if "conv_after_body.0.weight" in shapes else 1,
        features=shapes["conv_hr.weight"][0],
        doublings=sum(bool(re.fullmatch(r"conv_up\d+\.weight", name)) for name in shapes),
    )

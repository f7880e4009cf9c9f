"""The upscaling engine: padding, passes, tiles, memory that runs out, and what it refuses."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from hqsod import weights
from hqsod.building.engines import load_engine
from hqsod.building.recipes import RECIPES
from hqsod.errors import InputError, SettingsError, WeightsError
from hqsod.images import Array
from hqsod.inference.runtime import Runtime
from hqsod.inference.tiles import OVERLAP, _tiles, in_tiles
from hqsod.inference.torch_upscaler import torch_upscaler
from hqsod.inference.upscaler import NetworkUpscaler, load_upscaler, mirror_pad

from .conftest import random_picture
from .golden import inputs
from .test_swinir import SMALL, chelsea, golden, official, small

CPU = torch.device("cpu")


def photo(height: int, width: int) -> Array:
    return np.asarray(inputs.photo("chelsea"))[50 : 50 + height, 100 : 100 + width]


def enlarger(network: object) -> NetworkUpscaler:
    return torch_upscaler(network, 4, 8, CPU)  # type: ignore[arg-type]


def nearest(images: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(images, scale_factor=4.0, mode="nearest")


class FullMemory:
    """A network that has room for so many pixels, and counts its passes."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error, self.passes = room, error, []

    def __call__(self, images: Tensor) -> Tensor:
        self.passes.append(tuple(images.shape))
        if images[:, 0].numel() > self.room:
            raise self.error
        return nearest(images)


@pytest.mark.parametrize("size", ["L", pytest.param("M", marks=pytest.mark.slow)])
@torch.inference_mode()
def test_padding_is_that_of_the_published_code(size: str) -> None:
    pixels = chelsea(slice(100, 141), slice(160, 219)).permute(0, 2, 3, 1).numpy()
    padded = torch.from_numpy(mirror_pad(pixels, 8)).permute(0, 3, 1, 2)
    result = official(size)(padded)[0, :, : 41 * 4, : 59 * 4]
    expected = golden()[f"real_sr_{size}.odd_size"]
    np.testing.assert_allclose(result[:, ::2, ::2], expected, rtol=1e-3, atol=1e-4)


@given(st.integers(1, 30), st.integers(1, 30))
def test_padding_keeps_the_picture_and_always_adds(height: int, width: int) -> None:
    picture = np.arange(height * width * 3, dtype=np.uint8).reshape(1, height, width, 3)
    padded = mirror_pad(picture, 8)
    assert padded.shape[1:3] == (height // 8 * 8 + 8, width // 8 * 8 + 8)
    np.testing.assert_array_equal(padded[:, :height, :width], picture)
    np.testing.assert_array_equal(padded[:, height, :width], picture[:, -1])


def cpu_out_of_memory() -> Exception:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 48, dtype=torch.uint8)
    return raised.value


@pytest.mark.parametrize(("height", "width"), [(40, 56), (41, 30), (3, 5), (1, 1)])
def test_any_size_comes_back_four_times_as_large(height: int, width: int) -> None:
    (result,) = enlarger(nearest)([photo(height, width)])
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, photo(height, width).repeat(4, 0).repeat(4, 1))


def test_levels_are_clamped_and_rounded() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    for value, level in ((-0.3, 0), (1.7, 255), (0.4999, 127), (0.501, 128)):
        (result,) = enlarger(lambda images, value=value: nearest(images) + value)([picture])
        assert (result == level).all()


def test_a_batch_gives_what_each_picture_gives() -> None:
    upscaler = enlarger(small())
    batch = [photo(24, 40), photo(40, 24).transpose(1, 0, 2), photo(24, 40)[::-1]]
    upscaler.budget.pixels = 24 * 40 * 2  # two passes
    for together, alone in zip(upscaler(batch), map(upscaler, ([x] for x in batch)), strict=True):
        np.testing.assert_array_equal(together, alone[0])
    assert upscaler([]) == []


@given(st.integers(1, 120), st.integers(17, 50))
def test_tiles_share_every_position_among_them(windows: int, side: int) -> None:
    length, side = windows * 8, side * 8
    total = np.zeros(length)
    tiles = _tiles(length, side, 8)
    for start, shares in tiles:
        assert start % 8 == 0
        assert len(shares) == min(side, length)
        total[start : start + side] += shares
    np.testing.assert_allclose(total, 1, atol=1e-6)
    starts = [start for start, _ in tiles]
    assert all(b - a <= side - OVERLAP for a, b in pairwise(starts))


@settings(max_examples=10, deadline=None)
@given(st.integers(10, 40), st.integers(10, 40))
def test_tiles_of_a_local_network_are_the_whole(rows: int, columns: int) -> None:
    images = random_picture((2, rows * 8, columns * 8, 3))
    whole = images.repeat(4, 1).repeat(4, 2)
    tiled = in_tiles(lambda tile: tile.repeat(4, 1).repeat(4, 2), images, 136, 4, 8)
    np.testing.assert_array_equal(tiled, whole)


def test_tiles_of_swinir_leave_no_seam() -> None:
    picture = photo(200, 240)
    upscaler = enlarger(small())
    (whole,) = upscaler([picture])
    upscaler.budget.pixels = 136 * 136
    (tiled,) = upscaler([picture])
    difference = np.abs(whole.astype(int) - tiled)
    assert (difference <= 1).mean() >= 0.99
    assert difference.max() <= 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        cpu_out_of_memory(),
        MemoryError(),
    ],
)
def test_less_is_tried_when_memory_runs_out(error: Exception) -> None:
    network = FullMemory(200 * 200, error)
    upscaler, picture = enlarger(network), photo(240, 320)
    results = upscaler([picture, picture])
    for result in results:
        np.testing.assert_array_equal(result, picture.repeat(4, 0).repeat(4, 1))
    failed = len([shape for shape in network.passes if shape[0] * shape[2] * shape[3] > 200 * 200])
    network.passes.clear()
    upscaler([picture])
    assert failed > 0
    assert max(b * h * w for b, _, h, w in network.passes) <= 200 * 200  # it has learnt


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="wrong shape"):
        enlarger(FullMemory(0, RuntimeError("wrong shape")))([photo(8, 8)])


def test_lack_of_memory_for_a_small_tile_is_told() -> None:
    with pytest.raises(SettingsError, match="out of memory on cpu"):
        enlarger(FullMemory(0, MemoryError()))([photo(200, 200)])


@pytest.mark.parametrize("shapes", [((8, 8, 3), (8, 9, 3)), ((8, 8),), ((8, 8, 4),)])
def test_only_rgb_pictures_of_one_size(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match="one size"):
        enlarger(nearest)([np.zeros(shape, np.uint8) for shape in shapes])


def test_bicubic_is_pillows() -> None:
    upscaler = load_upscaler("bicubic", Runtime())
    assert (upscaler.name, upscaler.scale, upscaler.weights) == ("bicubic", 4, "")
    (result,) = upscaler([photo(30, 50)])
    expected = Image.fromarray(photo(30, 50)).resize((200, 120), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_of_ones_own(suffix: str, tmp_path: Path) -> None:
    network, path = small(), tmp_path / f"small{suffix}"
    if suffix == ".pth":
        torch.save({"params_ema": network.state_dict()}, path)
    else:
        weights.save(path, network.state_dict(), {})
    upscaler = load_upscaler(str(path), Runtime())
    assert (upscaler.name, upscaler.scale) == (str(path), 4)
    assert upscaler.weights == weights.sha256(path)
    directly = torch_upscaler(network, 4, 4, CPU)
    np.testing.assert_array_equal(upscaler([photo(30, 50)])[0], directly([photo(30, 50)])[0])


def test_a_build_refuses_another_scale(tmp_path: Path) -> None:
    path = tmp_path / "twice.safetensors"
    weights.save(path, small(replace(SMALL, doublings=1)).state_dict(), {})
    assert load_upscaler(str(path), Runtime()).scale == 2
    recipe = replace(RECIPES["preview"], upscaler=str(path))
    with pytest.raises(WeightsError, match="enlarges 2 times; expected 4 times"):
        load_engine(recipe, Runtime())


def test_unknown_weights_name_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.safetensors"
    weights.save(path, {"body.0.weight": torch.zeros(3, 3)}, {})
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(WeightsError, match=r"pip install 'hqsod\[spandrel\]'"):
        load_upscaler(str(path), Runtime())


def test_spandrel_loads_what_swinir_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.safetensors"
    weights.save(path, {"body.0.weight": torch.zeros(3, 3)}, {})
    monkeypatch.setitem(sys.modules, "spandrel", _spandrel_with(nearest))
    upscaler = load_upscaler(str(path), Runtime("cpu", "bf16"))
    assert upscaler.scale == 4
    np.testing.assert_array_equal(
        upscaler([photo(30, 50)])[0], photo(30, 50).repeat(4, 0).repeat(4, 1)
    )


def _spandrel_with(network: object) -> ModuleType:
    """The part of spandrel's interface that hqsod uses, around one network."""

    class ImageModelDescriptor:
        input_channels, scale, supports_bfloat16, dtype = 3, 4, False, torch.float32

        def __call__(self, images: Tensor) -> Tensor:
            return network(images)  # type: ignore[operator]

    class ModelLoader:
        def __init__(self, device: torch.device) -> None: ...

        def load_from_state_dict(self, state: dict[str, Tensor]) -> ImageModelDescriptor:
            assert set(state) == {"body.0.weight"}
            return ImageModelDescriptor()

    module = ModuleType("spandrel")
    module.UnsupportedModelError = type("UnsupportedModelError", (Exception,), {})
    module.ImageModelDescriptor, module.ModelLoader = ImageModelDescriptor, ModelLoader
    return module

"""A cut-out shows the object's own colours, whoever calls it and however often."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hqsod.cutout import OPACITY, CutOut, Shaping, cut_out, overlay, shape
from hqsod.encoding import encode
from hqsod.errors import InputError, SettingsError
from hqsod.matting import matte
from tests.conftest import random_picture
from tests.golden import inputs


def saliency_for(share: np.ndarray) -> np.ndarray:
    """Levels whose opacity is a share of the object, (H, W) from 0 to 1."""
    return np.where(share <= 0, 0, np.where(share >= 1, 255, 25.5 + 204 * share)).astype(np.uint8)


def mixture(object_: np.ndarray, behind: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (share[..., None] * object_ + (1 - share[..., None]) * behind).round().astype(np.uint8)


def photograph(name: str, size: tuple[int, int]) -> np.ndarray:
    return np.array(inputs.photo(name).convert("RGB").resize(size[::-1]))


def hairy(size: tuple[int, int], blur: float) -> np.ndarray:
    """The share of a shape with thin hairs and a soft edge, (H, W) from 0 to 1."""
    height, width = size
    drawn = np.zeros(size, np.uint8)
    centre = (width // 2, height // 2)
    cv2.ellipse(drawn, centre, (width * 3 // 10, height // 4), 0, 0, 360, 255, -1)
    for turn in np.linspace(0, 2 * np.pi, 60):
        way = np.array([np.cos(turn) * width, np.sin(turn) * height])
        ends = (tuple(int(c + w * r) for c, w in zip(centre, way, strict=True)) for r in (0.2, 0.4))
        cv2.line(drawn, *ends, 255, 1, cv2.LINE_AA)
    return cv2.GaussianBlur(drawn, (0, 0), blur) / np.float32(255)


def test_plain_colours_are_found_to_a_level_or_two():
    share = np.clip(np.linspace(3, -2, 160), 0, 1)[None].repeat(90, 0)
    red, blue = np.array([230, 30, 20]), np.array([10, 20, 240])
    levels = saliency_for(share)
    share = OPACITY[levels] / 255
    cut = cut_out(mixture(red, blue, share), levels)
    assert cut.shape == (90, 160, 4)
    np.testing.assert_array_equal(cut[..., 3], OPACITY[levels])
    seen = share > 0.1
    off = np.abs(cut[seen][:, :3] - red) * share[seen][:, None]
    assert off.mean() < 1
    assert off.max() < 8
    assert (cut[share == 0] == 0).all()


# What pymatting 1.1.16's estimate_foreground_ml leaves of the same mattes' error, in levels.
@pytest.mark.parametrize(("blur", "before", "pymatting"), [(1, 11.1, 4.85), (4, 7.2, 3.77)])
def test_photographs_are_unmixed_as_well_as_pymatting_does(
    blur: float, before: float, pymatting: float
):
    size = (400, 600)
    true, behind = photograph("coffee", size), photograph("chelsea", size)
    levels = saliency_for(hairy(size, blur))
    share = OPACITY[levels] / 255
    image = mixture(true, behind, share)
    edge = (share > 0.1) & (share < 1)

    def error(colours: np.ndarray) -> float:
        return float(
            (np.abs(colours[edge].astype(float) - true[edge]) * share[edge][:, None]).mean()
        )

    assert error(image) > before
    assert error(cut_out(image, levels)[..., :3]) < pymatting + 1.5


def test_inside_the_object_nothing_changes():
    image, share = photograph("chelsea", (200, 300)), hairy((200, 300), 1)
    levels = saliency_for(share)
    inside = OPACITY[levels] == 255
    assert inside.any()
    np.testing.assert_array_equal(cut_out(image, levels)[inside][:, :3], image[inside])


def test_threads_do_not_disturb_each_other():
    image, levels = photograph("chelsea", (200, 300)), saliency_for(hairy((200, 300), 1))
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: cut_out(image, levels), range(8))
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (5, 4)])
def test_any_size_is_cut_out(shape: tuple[int, int]):
    grey = np.full((*shape, 3), 90, np.uint8)
    assert (cut_out(grey, np.full(shape, 255, np.uint8)) == [90, 90, 90, 255]).all()
    assert (cut_out(grey, np.full(shape, 128, np.uint8))[..., :3] == 90).all()
    assert (cut_out(grey, np.zeros(shape, np.uint8)) == 0).all()


def test_an_overlay_leaves_the_background_alone():
    image = random_picture((8, 9, 3))
    levels = np.zeros((8, 9), np.uint8)
    levels[2:5, 3:6] = 255
    shown = overlay(image, levels)
    np.testing.assert_array_equal(shown[levels == 0], image[levels == 0])
    assert (shown[levels > 0] != image[levels > 0]).any(1).all()


# ---- settings


def levels_of(*parts: tuple[int, int, int, int, int]) -> np.ndarray:
    """A map of 60 x 80 with rectangles: top, left, height, width and level of each."""
    levels = np.zeros((60, 80), np.uint8)
    for top, left, height, width, level in parts:
        levels[top : top + height, left : left + width] = level
    return levels


def test_a_threshold_leaves_nothing_between():
    levels = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
    shaped = shape(levels, Shaping(threshold=0.5))
    np.testing.assert_array_equal(shaped, np.where(levels > 127, 255, 0))
    np.testing.assert_array_equal(shape(levels, Shaping()), levels)
    assert set(np.unique(cut_out(photograph("chelsea", (2, 256)), levels)[..., 3])) > {0, 255}


def test_islands_are_dropped_by_their_share_of_the_largest_part():
    large, corner = (10, 10, 20, 20, 250), (30, 30, 2, 2, 90)  # which touches the large one
    half, small, faint = (40, 50, 10, 20, 255), (2, 70, 3, 3, 255), (50, 2, 2, 2, 20)
    levels = levels_of(large, corner, half, small, faint)

    def kept(share: float) -> np.ndarray:
        return shape(levels, Shaping(drop_islands=share))

    np.testing.assert_array_equal(kept(0), levels)
    np.testing.assert_array_equal(kept(0.1), levels_of(large, corner, half, faint))
    np.testing.assert_array_equal(kept(0.6), levels_of(large, corner, faint))
    assert not shape(np.zeros((5, 5), np.uint8), Shaping(drop_islands=0.5)).any()


def test_a_crop_is_the_object_and_a_margin_within_the_image():
    image, levels = photograph("chelsea", (60, 80)), levels_of((20, 5, 10, 30, 255))
    whole = cut_out(image, levels)
    np.testing.assert_array_equal(cut_out(image, levels, CutOut(crop=0)), whole[20:30, 5:35])
    np.testing.assert_array_equal(cut_out(image, levels, CutOut(crop=8)), whole[12:38, 0:43])
    assert cut_out(image, np.zeros_like(levels), CutOut(crop=8)).shape == whole.shape


@pytest.mark.parametrize("background", ["red", "#f00", "#FF0000"])
def test_a_colour_lies_behind_the_object(background: str):
    image = np.full((60, 80, 3), 100, np.uint8)
    levels = levels_of((20, 5, 10, 30, 255), (40, 40, 5, 5, 128))
    laid = cut_out(image, levels, CutOut(background=background))
    assert (laid[0, 0] == (255, 0, 0)).all()
    assert (laid[25, 10] == 100).all()
    half = OPACITY[128] / 255
    np.testing.assert_allclose(
        laid[42, 42], half * 100 + (1 - half) * np.array([255, 0, 0]), atol=1
    )


def test_an_image_behind_the_object_covers_it_all_undistorted(tmp_path: Path):
    behind = np.zeros((20, 100, 3), np.uint8)
    behind[:, 40:60] = 200  # a square in the middle
    Image.fromarray(behind).save(tmp_path / "behind.png")
    levels = levels_of((20, 30, 10, 10, 255))
    image = photograph("chelsea", (60, 80))
    for given in (behind, Image.fromarray(behind), tmp_path / "behind.png"):
        laid = cut_out(image, levels, CutOut(background=given))
        assert laid.shape == (60, 80, 3)
        np.testing.assert_array_equal(laid[levels == 255], image[levels == 255])
        bright = laid[5].max(1) > 100  # enlarged three times, cut at the left and right
        assert list(np.flatnonzero(bright)) == list(range(10, 70))
    cropped = cut_out(image, levels, CutOut(background=behind, crop=0))
    assert (cropped[:, :, 0] == image[20:30, 30:40, 0]).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 1}, "threshold 1; expected from 0"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"drop_islands": -0.1}, "drop_islands -0.1"),
        ({"crop": -1}, "crop -1; expected a whole number of pixels, 0 or more"),
        ({"crop": 1.5}, "crop 1.5"),
        ({"format": "gif"}, "format gif; expected one of png, webp, jpg"),
        ({"format": "jpg"}, "expected a background"),
        ({"background": "whit"}, "expected a colour such as white"),
        ({"background": "#12345678"}, "expected a colour such as white"),
        ({"background": "photo.jpg"}, "as a Path"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(settings: dict, said: str):
    with pytest.raises(SettingsError, match=said):
        CutOut(**settings)


def test_a_background_that_cannot_be_read_is_refused_before_work_begins(tmp_path: Path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.jpg"):
        CutOut(background=tmp_path / "bad.jpg")


@pytest.mark.parametrize(("ending", "name"), [("png", "PNG"), ("webp", "WEBP"), ("jpg", "JPEG")])
def test_files_are_of_the_format_asked_for(ending: str, name: str):
    cut = cut_out(photograph("chelsea", (60, 80)), levels_of((20, 5, 10, 30, 255)))
    array = cut[..., :3] if ending == "jpg" else cut
    file = Image.open(io.BytesIO(encode(array, ending)))
    assert (file.format, file.size) == (name, (80, 60))
    seen = cut[..., 3] > 0
    read = np.asarray(file.convert("RGB"), int)
    np.testing.assert_allclose(read[seen], cut[seen][:, :3], atol=60)
    if ending == "webp":
        np.testing.assert_array_equal(np.asarray(file)[..., 3], cut[..., 3])


def test_what_a_format_cannot_hold_is_refused():
    wide = np.zeros((1, 16_384, 4), np.uint8)
    with pytest.raises(InputError, match="at most 16,383 a side; ask for png"):
        encode(wide, "webp")
    assert encode(wide[:, 1:], "webp")


def test_matting_finds_hairs_that_a_map_has_lost():
    pytest.importorskip("pymatting", reason="the extra matting is not installed")
    size = (100, 150)
    share = hairy(size, 0.6)
    image = mixture(np.full((*size, 3), 210.0), np.full((*size, 3), 30.0), share)
    coarse = saliency_for(cv2.GaussianBlur(share, (0, 0), 4))

    def error(settings: CutOut) -> float:
        return float(np.abs(cut_out(image, coarse, settings)[..., 3] / 255 - share).mean())

    assert error(CutOut(matting=True)) < 0.5 * error(CutOut())


@pytest.mark.parametrize("levels", [np.zeros((30, 40)), np.full((30, 40), 255), np.ones((2, 1))])
def test_matting_leaves_alone_what_has_no_edge(levels: np.ndarray):
    levels = levels.astype(np.uint8)
    image = random_picture((*levels.shape, 3))
    np.testing.assert_array_equal(matte(image, levels), levels)

"""Reading and writing pictures."""

from __future__ import annotations

import errno
import io
import itertools
from contextlib import suppress
from pathlib import Path
from time import thread_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hqsod import addresses, decoding, encoding, images
from hqsod.errors import InputError, OutputError
from tests.conftest import random_picture, save
from tests.golden import inputs
from tests.hostile import bomb, many_chunks, many_runs, many_scans, many_segments


def test_masks_enlarge_with_pillows_bicubic():
    mask = inputs.mask("chelsea")
    expected = mask.resize((4 * mask.width, 4 * mask.height), Image.Resampling.BICUBIC)
    size = (4 * mask.height, 4 * mask.width)
    ours = images.resize(np.asarray(mask), size, Image.Resampling.BICUBIC)
    assert (ours == np.asarray(expected)).all()


@given(st.sampled_from([(7, 9), (7, 9, 3), (7, 9, 4)]), st.integers(0, 100))
def test_png_keeps_every_pixel(shape, seed):
    array = random_picture(shape, seed)
    assert (np.asarray(Image.open(io.BytesIO(encoding.encode_png(array)))) == array).all()


def test_odd_pictures_are_converted_and_named(tmp_path: Path):
    rgb = np.asarray(inputs.photo("chelsea"))[:40, :60]
    grey = rgb[..., 0]
    cases = {
        "grey.png": Image.fromarray(grey),
        "palette.png": Image.fromarray(rgb).quantize(64),
        "cmyk.jpg": Image.fromarray(rgb).convert("CMYK"),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "clear.png": Image.fromarray(np.dstack([rgb, grey])),
    }
    for name, picture in cases.items():
        picture.save(tmp_path / name)
        read = images.read_image(tmp_path / name)
        assert read.shape == (40, 60, 3), name
        assert read.dtype == np.uint8, name
        assert len(images.load_image(tmp_path / name).notes) == 1, name
    assert (images.read_image(tmp_path / "deep.png")[..., 1] == grey).all()
    assert images.load_image(save(tmp_path / "plain.png", rgb)).notes == ()


def test_exif_orientation_is_honoured(tmp_path: Path):
    rgb = random_picture((20, 30, 3))
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6  # shown turned by a quarter
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    assert (images.read_image(tmp_path / "turned.png") == np.rot90(rgb, -1)).all()
    assert images.read_size(tmp_path / "turned.png") == (30, 20)
    assert "orientation" in images.load_image(tmp_path / "turned.png").notes[0]


def test_a_coloured_mask_is_refused_and_a_grey_rgb_one_taken(tmp_path: Path):
    grey = random_picture((8, 8))
    path = save(tmp_path / "grey.png", np.dstack([grey] * 3))
    assert (images.read_mask(path) == grey).all()
    with pytest.raises(InputError, match="a mask in colours"):
        images.read_mask(save(tmp_path / "red.png", random_picture((8, 8, 3))))


def test_broken_files_are_named(tmp_path: Path):
    whole = tmp_path / "whole.jpg"
    inputs.photo("chelsea").save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("not a picture")
    for name, reason in (("cut", "truncated"), ("text", "not an image"), ("gone", "no such")):
        with pytest.raises(InputError, match=reason) as caught:
            images.read_image(tmp_path / f"{name}.jpg")
        assert f"{name}.jpg" in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_whatever_byte_of_a_header_is_damaged_it_is_read_or_refused(form: str):
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form, exif=exif)
    refused = 0
    for position, value in itertools.product(range(min(buffer.tell(), 300)), (0, 1, 2, 5, 7, 255)):
        damaged = bytearray(buffer.getvalue())
        damaged[position] = value
        try:
            assert images.read_image(io.BytesIO(damaged), 10**6).ndim == 3
        except InputError:
            refused += 1
    assert refused


def test_programs_that_decode_are_not_run(tmp_path: Path):
    path = tmp_path / "page.jpg"
    Image.new("RGB", (8, 8)).save(path, "EPS")  # Pillow would start Ghostscript
    with pytest.raises(InputError, match="not an image in JPEG"):
        images.read_image(path)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    with pytest.raises(InputError, match=r"bomb\.png.*pixels"):
        images.read_image(path)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_an_input_error(data):
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"BM", b"RIFF"):
        with suppress(InputError):
            assert images.read_image(io.BytesIO(start + data)).ndim == 3


def test_a_write_that_fails_leaves_nothing_and_names_the_file(tmp_path: Path, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(addresses.os, "fsync", full)
    with pytest.raises(OutputError, match=r"x\.png: No space left"):
        encoding.write_png(tmp_path / "x.png", random_picture((4, 4)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_survives_a_failed_write(tmp_path: Path, monkeypatch):
    addresses.write_bytes(tmp_path / "x", b"old")

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(addresses.os, "fsync", broken)
    with pytest.raises(OutputError):
        addresses.write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_mask_of_levels_0_and_1_is_refused(tmp_path: Path):
    mask = np.eye(8, dtype=np.uint8)
    save(tmp_path / "mask.png", mask)
    with pytest.raises(InputError, match="levels 0 and 1"):
        images.read_mask(tmp_path / "mask.png")
    save(tmp_path / "mask.png", 0 * mask)
    assert not images.read_mask(tmp_path / "mask.png").any()


@pytest.mark.parametrize(
    "data",
    [many_scans(1500, 1000), many_segments(10**6), many_chunks(10**6), many_runs(10**6)],
    ids=["scans", "segments", "chunks", "runs"],
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_small_file_cannot_ask_for_hours(data, on_disk, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(decoding, "DECODE_SECONDS", 0.05)
    (tmp_path / "x").write_bytes(data)
    start = thread_time()
    with pytest.raises(InputError, match=r"within 0\.05 s of processor time"):
        images.read_image(tmp_path / "x" if on_disk else io.BytesIO(data))
    assert thread_time() - start < 0.5


@pytest.mark.parametrize("form", decoding.FORMATS)
def test_ordinary_files_of_many_blocks_are_read(form, tmp_path: Path):
    noise = random_picture((150, 200, 3))
    for options in ({}, {"progressive": True, "quality": 100}, {"compression": "tiff_lzw"}):
        Image.fromarray(noise).save(tmp_path / "x", form, **options)
        with Image.open(tmp_path / "x") as picture:
            wanted = np.asarray(picture.convert("RGB"))
        assert (tmp_path / "x").stat().st_size > 4 * decoding.BLOCK
        np.testing.assert_array_equal(images.read_image(tmp_path / "x"), wanted)


def test_an_open_file_stays_open_and_its_owners():
    source = io.BytesIO(encoding.encode_png(random_picture((40, 30))))
    assert images.read_size(source) == (40, 30)
    source.seek(0)
    assert images.read_map(source).shape == (40, 30)

"""Image files from strangers: what is read, with which note, and what is refused."""

from __future__ import annotations

import ast
import io
import os
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import hqsod
from hqsod import decoding, images
from hqsod.errors import InputError
from hqsod.pairs import Pair, read_pair
from tests.conftest import random_picture, save
from tests.golden import inputs
from tests.hostile import (
    chunk,
    encoded,
    endless_profile,
    jpeg_in_tiff,
    overlapping_tags,
    png,
    tiff,
    tiled_tiff,
)

DISK = np.where(np.hypot(*np.mgrid[-12:12, -16:16]) < 9, np.uint8(255), np.uint8(0))
NEEDS_AVIF = pytest.mark.skipif("AVIF" not in decoding.FORMATS, reason="Pillow 13 reads AVIF")
WHITE, BLACK = np.full_like(DISK, 255), np.zeros_like(DISK)


def stored(folder: Path, picture: Image.Image | np.ndarray, name: str = "mask.png") -> Path:
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    picture.save(folder / name)
    return folder / name


def test_nothing_else_opens_image_files():
    source = Path(hqsod.__file__).parent
    found = {
        path.name
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name)
        and ast.unparse(node) in ("Image.open", "PIL.Image.open", "cv2.imread", "cv2.imdecode")
    }
    assert found == {"decoding.py"}


@pytest.mark.parametrize(
    "colours",
    [[BLACK] * 3, [WHITE] * 3, [WHITE // 2, BLACK, WHITE], [DISK] * 3],
    ids=["black", "white", "blue", "as the transparency"],
)
def test_a_mask_in_the_transparency_is_read(tmp_path: Path, colours: list[np.ndarray]):
    read = images.load_mask(stored(tmp_path, np.dstack([*colours, DISK])))
    assert (read.pixels == DISK).all()
    assert len(read.notes) == 1


def test_a_mask_in_the_transparency_of_other_modes(tmp_path: Path):
    alpha = Image.fromarray(DISK)
    grey = Image.merge("LA", [Image.new("L", alpha.size), alpha])
    palette = Image.fromarray(DISK // 255, "P")
    palette.putpalette([9] * 6)
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 255]))
    for path in (stored(tmp_path, grey), tmp_path / "palette.png"):
        read = images.load_mask(path)
        assert (read.pixels == DISK).all()
        assert "transparency" in read.notes[0]


def test_an_opaque_mask_keeps_its_levels(tmp_path: Path):
    for alpha in (WHITE, BLACK):  # invisible as a whole: some programs save masks so
        read = images.load_mask(stored(tmp_path, np.dstack([DISK] * 3 + [alpha])))
        assert (read.pixels == DISK).all()


def test_levels_and_transparency_that_disagree_are_refused(tmp_path: Path):
    path = stored(tmp_path, np.dstack([DISK] * 3 + [255 - DISK]))
    with pytest.raises(InputError, match=r"mask\.png: levels and transparency"):
        images.read_mask(path)


def test_a_trace_of_colour_is_made_grey_and_colours_are_refused(tmp_path: Path):
    mask = np.dstack([DISK] * 3)
    mask[3, 4] = (120, 134, 127)
    read = images.load_mask(stored(tmp_path, mask))
    assert (read.pixels == np.asarray(Image.fromarray(mask).convert("L"))).all()
    assert read.notes == ("a trace of colour on 0.1% of the pixels, made grey",)
    mask[3, 4] = (120, 137, 127)
    with pytest.raises(InputError, match="a mask in colours"):
        images.read_mask(stored(tmp_path, mask))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (DISK.astype(np.uint16), DISK),
        (DISK.astype(np.uint16) * 257, DISK),
        (DISK.astype(np.uint16) // 255 * 4095, DISK),
        (DISK.astype(np.int32), DISK),
        (DISK.astype(np.float32) / 255, DISK),
        (DISK.astype(np.float32), DISK),
    ],
    ids=["8 bits in 16", "16 bits", "12 bits in 16", "8 bits in 32", "shares", "levels"],
)
def test_wide_types_are_read_by_the_range_they_use(tmp_path: Path, values, expected):
    path = stored(tmp_path, values, "mask.tif")
    assert (images.read_mask(path) == expected).all()
    photograph = images.load_image(path)
    assert (photograph.pixels == expected[..., None]).all()
    assert len(photograph.notes) == 1


@pytest.mark.parametrize(
    "values",
    [
        DISK.astype(np.float32) * 2,
        DISK.astype(np.float32) - 1,
        np.full_like(DISK, np.nan, np.float32),
        DISK.astype(np.int32) - 255,
    ],
    ids=["above 255", "below 0", "no numbers", "signed"],
)
def test_values_that_are_no_levels_are_refused_by_name(tmp_path: Path, values: np.ndarray):
    path = stored(tmp_path, values, "mask.tif")
    for read in (images.read_image, images.read_mask):
        with pytest.raises(InputError, match=r"mask\.tif: values from"):
            read(path)


@pytest.mark.parametrize(("highest", "refused"), [(255, True), (4095, True), (65535, False)])
def test_colours_in_16_bits_that_would_come_out_black_are_refused(highest: int, refused: bool):
    rows = random_picture((8, 9)).astype(np.uint32) * highest // 255
    raw = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in rows)
    data = png(9, 8, 16, 2, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    if refused:
        with pytest.raises(InputError, match="16 bits"):
            images.read_image(io.BytesIO(data))
    else:
        assert (images.read_image(io.BytesIO(data))[..., 1] == rows >> 8).all()


def grey_tiff(values: np.ndarray, tags: dict[int, int]) -> io.BytesIO:
    """A TIFF file of grey levels with these tags besides the usual ones."""
    height, width = values.shape
    sizes = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 277: 1, 278: height}
    return io.BytesIO(tiff({**sizes, 273: -1, 279: values.nbytes, **tags}, values.tobytes()))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_with_white_as_0_is_inverted(kind: type[np.integer]):
    levels = np.array([[0, 37, 255]], kind) * (np.iinfo(kind).max // 255)
    for meaning, expected in ((1, [0, 37, 255]), (0, [255, 218, 0])):
        assert images.read_map(grey_tiff(levels, {262: meaning})).tolist() == [expected]


def test_a_profile_that_is_a_number_is_passed_over():
    read = images.load_image(grey_tiff(DISK, {262: 1, 34675: 12345}))
    assert (read.pixels[..., 0] == DISK).all()
    assert "a colour profile that cannot be used, passed over" in read.notes


def test_grey_times_opacity_is_read():
    alpha = Image.fromarray(DISK)
    data = encoded(Image.merge("LA", [alpha, alpha]), "TIFF")
    extra = struct.pack("<HHII", 338, 3, 1, 2)  # what the second channel is
    assert data.count(extra) == 1
    data = data.replace(extra, struct.pack("<HHII", 338, 3, 1, 1))
    assert Image.open(io.BytesIO(data)).mode == "La"
    for load in (images.load_image, images.load_map):
        pixels = load(io.BytesIO(data)).pixels
        assert (pixels.reshape(*DISK.shape, -1)[..., 0] == DISK).all()


def test_a_palette_that_is_missing_is_told_by_the_files_name(tmp_path: Path):
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + bytes(9)) * 8))
    (tmp_path / "a.png").write_bytes(png(9, 8, 8, 3, pixels, chunk(b"IEND", b"")))
    for load in (images.load_image, images.load_map):
        with pytest.raises(InputError, match=r"a\.png: cannot be converted"):
            load(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("levels", "said"),
    [([0, 1], "levels 0 and 1,"), ([0, 38], "levels 0 and 38,"), ([7], "levels 7 alone,")],
)
def test_a_mask_without_an_object_that_is_not_black_is_refused(tmp_path: Path, levels, said: str):
    mask = np.resize(np.array(levels, np.uint8), (6, 8))
    for values in (mask, mask.astype(np.uint16)):
        with pytest.raises(InputError, match=rf"mask\.png: {said} none above 127"):
            images.read_mask(stored(tmp_path, values))
    assert not images.read_mask(stored(tmp_path, 0 * mask)).any()


def turned_pair(folder: Path, orientation: int, mask: np.ndarray) -> Pair:
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = orientation
    Image.fromarray(random_picture((24, 32, 3))).save(folder / "a.jpg", exif=exif)
    return Pair("a", folder / "a.jpg", save(folder / "a.png", mask))


def test_a_mask_is_turned_with_its_image_where_the_sizes_say_so(tmp_path: Path):
    pair = turned_pair(tmp_path, 6, DISK)
    image, mask, notes = read_pair(pair)
    assert image.shape == (32, 24, 3)
    assert (mask == np.rot90(DISK, -1)).all()
    assert [str(note) for note in notes][-1] == f"{pair.mask}: turned as its image was"


def test_a_mask_that_is_upright_stays(tmp_path: Path):
    _, mask, notes = read_pair(turned_pair(tmp_path, 6, np.rot90(DISK, -1)))
    assert (mask == np.rot90(DISK, -1)).all()
    assert [note.text for note in notes] == ["turned as its EXIF orientation says"]


def test_that_sizes_do_not_say_whether_to_turn_a_mask_is_said(tmp_path: Path):
    _, mask, notes = read_pair(turned_pair(tmp_path, 3, DISK))
    assert (mask == DISK).all()
    assert "not turned" in notes[-1].text


def test_sizes_that_differ_are_refused_width_first(tmp_path: Path):
    with pytest.raises(InputError, match=r"a\.png: 31 x 24 pixels; expected .*a\.jpg, 32 x 24"):
        read_pair(turned_pair(tmp_path, 1, DISK[:, 1:]))


CHUNKS = (b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"cHRM", b"gAMA", b"sRGB", b"pHYs", b"acTL")


@pytest.mark.parametrize("kind", CHUNKS, ids=bytes.decode)
@pytest.mark.parametrize("content", [b"", b"\1", b"\0nonsense\xff" * 5])
@pytest.mark.parametrize("checksum", [0, 255])
def test_damaged_metadata_of_a_png_costs_nothing(kind: bytes, content: bytes, checksum: int):
    rgb = random_picture((24, 32, 3))
    data = encoded(Image.fromarray(rgb))
    damaged = bytearray(chunk(kind, content))
    damaged[-1] ^= checksum
    for place in (33, len(data) - 12):
        file = io.BytesIO(data[:place] + damaged + data[place:])
        assert (images.read_image(file) == rgb).all()
        assert images.read_size(file) == (24, 32)


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_damaged_metadata_of_a_jpeg_costs_nothing(marker: int):
    data = encoded(inputs.photo("chelsea").resize((32, 24)), "JPEG")
    expected = images.read_image(io.BytesIO(data))
    for name in (b"", b"Exif\0\0", b"ICC_PROFILE\0", b"Photoshop 3.0\x008BIM", b"MPF\0", b"JFIF\0"):
        for content in (name, name + b"\0nonsense\xff" * 5):
            segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
            file = io.BytesIO(data[:2] + segment + data[2:])
            assert (images.read_image(file) == expected).all()


@pytest.mark.parametrize("form", [form for form in decoding.FORMATS if form not in ("BMP", "GIF")])
@pytest.mark.parametrize("metadata", ["exif", "icc_profile", "xmp"])
def test_damaged_metadata_of_any_format_costs_nothing(form: str, metadata: str):
    image = inputs.photo("chelsea").resize((32, 24))
    nonsense = b"Exif\0\0II*\0" + b"\0nonsense\xff" * 20
    data = encoded(image, form, **{metadata: nonsense})
    expected = images.read_image(io.BytesIO(encoded(image, form)))
    assert (images.read_image(io.BytesIO(data)) == expected).all()


def test_heic_is_read_where_its_extra_is_installed():
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    heif.register_heif_opener()
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[10:30, 20:50] = (200, 60, 30)
    read = images.read_image(io.BytesIO(encoded(Image.fromarray(rgb), "HEIF", quality=95)))
    assert read.shape == rgb.shape
    assert np.abs(read[12:28, 22:48].astype(int) - (200, 60, 30)).max() <= 6


def test_the_rest_of_a_file_with_damaged_metadata_counts():
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    data = encoded(Image.fromarray(random_picture((24, 32, 3))), exif=exif)
    read = images.load_image(io.BytesIO(data[:33] + chunk(b"gAMA", b"") + data[33:]))
    assert read.pixels.shape == (32, 24, 3)
    assert read.notes[0] == "damaged metadata, passed over"


def narrow_profile() -> bytes:
    """A profile of linear light with sRGB's primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132])
    for at in range(132, 132 + 12 * count, 12):
        tag, start = profile[at : at + 4], int.from_bytes(profile[at + 4 : at + 8])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            profile[at + 8 : at + 12] = struct.pack(">I", 12)
            profile[start : start + 12] = b"curv\0\0\0\0\0\0\0\0"  # no curve: linear
    return bytes(profile)


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L")])
def test_an_embedded_profile_is_converted_to_srgb(form: str, mode: str):
    grey = Image.fromarray(np.full((8, 8), 55, np.uint8)).convert(mode)
    read = images.load_image(io.BytesIO(encoded(grey, form, icc_profile=narrow_profile())))
    linear = 55 / 255
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(read.pixels.astype(float) - expected).max() <= 1.5
    assert "converted to sRGB from its embedded colour profile" in read.notes


def test_a_profile_that_is_srgb_or_nonsense_changes_nothing():
    rgb = random_picture((24, 32, 3))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, notes in ((srgb, 0), (b"nonsense" * 40, 1)):
        file = io.BytesIO(encoded(Image.fromarray(rgb), icc_profile=profile))
        read = images.load_image(file)
        assert (read.pixels == rgb).all()
        assert len(read.notes) == notes


def test_masks_are_levels_whatever_profile_they_carry():
    file = io.BytesIO(encoded(Image.fromarray(DISK // 2), icc_profile=narrow_profile()))
    assert (images.read_map(file) == DISK // 2).all()


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, suffix: str):
    frames = [Image.fromarray(level * DISK) for level in (1, 0)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    read = images.load_mask(path)
    assert (read.pixels == DISK).all()
    assert "several frames, the first one taken" in read.notes


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.gif", "GIF")),
        pytest.param("a.avif", "AVIF", marks=NEEDS_AVIF),
    ],
)
def test_further_formats_are_found_and_read(tmp_path: Path, name: str, form: str):
    inputs.photo("chelsea").resize((32, 24)).save(tmp_path / name, form)
    (found,) = images.find_images(tmp_path)
    assert images.read_image(found).shape == (24, 32, 3)


def test_what_is_needed_for_heic_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(decoding, "_formats", lambda: decoding.FORMATS)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(InputError, match=r"pip install 'hqsod\[heic\]'"):
        images.read_image(tmp_path / "a.heic")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "lost.jpg").symlink_to("gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "loop.jpg", "lost.jpg", "folder.jpg"):
        with pytest.raises(InputError, match=name):
            images.read_image(tmp_path / name)
    assert images.find_images(tmp_path) == []
    others = [path.name for path in images.find_others(tmp_path)]
    assert others == ["loop.jpg", "lost.jpg", "pipe.jpg"]


def test_a_name_that_is_not_utf8_costs_its_pair(tmp_path: Path):
    stem = os.fsdecode(b"caf\xe9")
    pair = Pair(stem, tmp_path / f"{stem}.jpg", tmp_path / f"{stem}.png")
    with pytest.raises(InputError, match=r"caf\\udce9: a file name that is not UTF-8") as caught:
        read_pair(pair)
    str(caught.value).encode()


def test_a_tiny_tiff_cannot_ask_for_gigabytes():
    assert images.read_image(io.BytesIO(tiled_tiff(64, 48))).shape == (32, 48, 3)
    with pytest.raises(InputError, match="tiles of 40000 x 40000 pixels"):
        images.read_image(io.BytesIO(tiled_tiff(40_000, 40_000)))


def test_what_a_decoder_has_not_implemented_is_refused(monkeypatch):
    """Met with a damaged AVIF file by benchmarks/attack.py."""

    def fail(*_, **__):
        raise RuntimeError("Failed to decode image: Not implemented")

    monkeypatch.setattr(Image, "open", fail)
    for read in (images.read_size, images.read_image):
        with pytest.raises(InputError, match="Not implemented"):
            read(io.BytesIO(b"avif"))


def test_jpeg_in_a_tiff_is_refused():
    with pytest.raises(InputError, match="compressed as jpeg"):
        images.read_image(io.BytesIO(jpeg_in_tiff(64, 90)))


def test_a_file_with_holes_is_refused_by_its_length(tmp_path: Path):
    data = encoded(Image.new("L", (8, 8)))
    (tmp_path / "a.png").write_bytes(data[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt")
    os.truncate(tmp_path / "a.png", 2**31 + 100)
    with pytest.raises(InputError, match="bytes; expected at most 512,000,000"):
        images.read_image(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file, pytest.raises(InputError, match="at most 512"):
        images.read_size(file)


@pytest.mark.parametrize("form", ["WEBP", "PNG", pytest.param("AVIF", marks=NEEDS_AVIF), "TIFF"])
def test_metadata_that_lies_over_itself_fills_no_memory(form: str):
    """A megabyte whose tags hold half of it each would be 20 GB."""
    image, tags = Image.new("RGB", (8, 8), (1, 2, 3)), overlapping_tags(2**20)
    if form == "TIFF":
        data = tags
    elif form == "PNG":
        data = encoded(image)
        data = data[:-12] + chunk(b"eXIf", tags) + data[-12:]  # after the pixels
    else:
        data = encoded(image, form, exif=b"Exif\0\0" + tags)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (images.read_size, images.read_image):
        if form == "TIFF":
            with pytest.raises(InputError):
                read(io.BytesIO(data))
        else:
            read(io.BytesIO(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_profile_that_takes_for_ever_is_passed_over():
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    for profile in (endless_profile(40_000), endless_profile(1)[:-1] + bytes(5_000_000)):
        start = time.thread_time()
        read = images.load_image(io.BytesIO(encoded(image, "WEBP", icc_profile=profile)))
        assert read.notes == ("a colour profile that cannot be used, passed over",)
        assert time.thread_time() - start < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["tiff", "jpeg", "png", "webp"])
def test_the_size_of_a_turned_image_is_that_of_its_pixels(
    tmp_path: Path, form: str, orientation: int
):
    exif, path = Image.Exif(), tmp_path / f"turned.{form}"
    exif[decoding.ORIENTATION] = orientation
    Image.fromarray(random_picture((9, 11, 3))).save(path, exif=exif)
    assert decoding.read_size(path) == images.read_image(path).shape[:2]

"""Layouts are found by themselves, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hqsod.dataset.layouts import LAYOUTS, find_pairs, inspect
from hqsod.errors import InputError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_is_found(tmp_path: Path, layout, nested: bool):
    root = tmp_path / "inner" if nested else tmp_path
    images, masks = (name.replace("*", "DUTS-TR") for name in (layout.images, layout.masks))
    touch(*(root / images / f"{stem}.jpg" for stem in "ba"))
    touch(*(root / masks / f"{stem}.png" for stem in "ab"), root / masks / "alone.png")
    found = inspect(tmp_path)
    assert [pair.stem for pair in found.pairs] == ["a", "b"]
    assert found.layout == f"{layout.name} layout"
    assert [path.name for path in found.unpaired] == ["alone.png"]


def test_a_built_data_set_gives_its_refined_masks_unless_told(tmp_path: Path):
    touch(*(tmp_path / kind / "a.png" for kind in ("images", "masks", "hq-masks")))
    assert find_pairs(tmp_path)[0].mask == tmp_path / "hq-masks" / "a.png"
    assert find_pairs(tmp_path, "images", "masks")[0].mask == tmp_path / "masks" / "a.png"


def test_flat_layout_and_doubled_stems(tmp_path: Path):
    touch(*(tmp_path / name for name in ("a.jpg", "a.png", "a.jpeg", "b.png", ".c.jpg", "d.txt")))
    found = inspect(tmp_path)
    assert [pair.stem for pair in found.pairs] == ["a"]
    assert [path.name for path in found.unpaired] == ["b.png"]
    assert len(found.ambiguous) == 1


def test_folders_can_be_named(tmp_path: Path):
    touch(tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.png")
    assert len(find_pairs(tmp_path, "x", str(tmp_path / "y"))) == 1
    with pytest.raises(InputError, match="both or neither"):
        inspect(tmp_path, "x")
    with pytest.raises(InputError, match="no such folder"):
        inspect(tmp_path, "x", "z")


def test_what_cannot_be_found_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="no known layout"):
        inspect(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        inspect(tmp_path / "gone")
    touch(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "b.png")
    with pytest.raises(InputError, match="no image with a mask"):
        find_pairs(tmp_path)


def test_a_folder_of_several_data_sets_is_refused(tmp_path: Path):
    touch(*(tmp_path / "data" / f"DUTS-TR/DUTS-TR-{kind}" / "a.png" for kind in ("Image", "Mask")))
    assert len(find_pairs(tmp_path / "data")) == 1
    touch(*(tmp_path / "data" / f"DUTS-TE/DUTS-TE-{kind}" / "b.png" for kind in ("Image", "Mask")))
    with pytest.raises(InputError, match="holds DUTS-TE, DUTS-TR"):
        find_pairs(tmp_path / "data")


@pytest.mark.parametrize("ending", ["_mask", "-mask", "_gt"])
def test_endings_that_all_masks_have_are_understood(tmp_path: Path, ending: str):
    touch(*(tmp_path / "images" / f"{stem}.jpg" for stem in "ab"))
    touch(*(tmp_path / "masks" / f"{stem}{ending}.png" for stem in "ab"))
    assert [pair.stem for pair in find_pairs(tmp_path)] == ["a", "b"]
    touch(tmp_path / "masks" / "c.png")
    with pytest.raises(InputError, match="no image with a mask"):
        find_pairs(tmp_path)


def test_images_that_are_themselves_named_so_keep_their_masks(tmp_path: Path):
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        touch(*(tmp_path / kind / f"{stem}.{suffix}" for stem in ("gas-mask", "face-mask")))
    assert [pair.stem for pair in find_pairs(tmp_path)] == ["face-mask", "gas-mask"]
    touch(*(tmp_path / "other/images" / f"{stem}.jpg" for stem in ("gas", "gas-mask")))
    touch(*(tmp_path / "other/masks" / f"{stem}-mask.png" for stem in ("gas", "gas-mask")))
    pairs = {pair.stem: pair.mask.name for pair in find_pairs(tmp_path / "other")}
    assert pairs == {"gas": "gas-mask.png", "gas-mask": "gas-mask-mask.png"}


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path, kind: str, monkeypatch):
    touch(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png")
    really_iterate = Path.iterdir

    def iterate(self: Path):
        if self.name == kind:
            raise PermissionError(13, "Permission denied")
        return really_iterate(self)

    monkeypatch.setattr(Path, "iterdir", iterate)
    with pytest.raises(InputError, match=f"{kind}: Permission denied"):
        inspect(tmp_path, "images", "masks")


def test_what_is_left_out_is_said_with_its_number(tmp_path: Path, capsys):
    touch(*(tmp_path / "images" / name for name in ("a.jpg", "b.jpg", "b.png", "c.tga", ".d")))
    touch(*(tmp_path / "masks" / name for name in ("a.png", "b_mask.png")))
    (tmp_path / "images" / "lost.jpg").symlink_to("gone.jpg")
    assert len(find_pairs(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "files with the same name as another: 1, such as b.png" in said
    assert "files whose names are not those of images: 2, such as c.tga" in said

"""The manifest keeps history, gives the newest, and refuses what is not one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from hqsod.dataset.folders import IMAGES, MASKS
from hqsod.dataset.manifest import NAME, File, Manifest, Record
from hqsod.errors import InputError, OutputError
from hqsod.types import Placement

RECORD = Record(
    stem="a",
    status="built",
    recipe="key",
    sources={"image": File("a.jpg", "1", 2), "mask": File("a.png", "3", 4)},
    placement=Placement((16, 16), 2, 0, (12, 16)),
    outputs={"images": File("images/a.png", "5", 6)},
    seconds={"read": 0.5},
    quality={"iou": 0.9},
    score=0.75,
    flagged=True,
    notes="grey",
)


def test_the_newest_record_of_a_stem_counts(tmp_path: Path):
    older = Record("a", "rejected", "key", {}, notes="truncated")
    with Manifest.open(tmp_path, create=True) as manifest:
        manifest.add_recipe("key", {"canvas": 16})
        manifest.add_recipe("key", {"canvas": 16})
        for record in (older, RECORD, Record("b", "built", "key", {})):
            manifest.append(record)
    with Manifest.open(tmp_path) as manifest:
        assert manifest.latest() == {"a": RECORD, "b": Record("b", "built", "key", {})}
        assert manifest.recipe("key") == {"canvas": 16}


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="made by hqsod build"):
        Manifest.open(tmp_path).__enter__()


def test_a_damaged_manifest_is_an_error_in_words(tmp_path: Path):
    (tmp_path / NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError, match="manifest"), Manifest.open(tmp_path) as manifest:
        manifest.latest()


def folder_with(tmp_path: Path, record: Record) -> Path:
    folder = tmp_path / "data"
    for layer in (IMAGES, MASKS):
        (folder / layer).mkdir(parents=True)
    with Manifest.open(folder, create=True) as manifest:
        manifest.add_recipe("key", {})
        manifest.append(record)
    return folder


def outputs(path: str, layer: str = MASKS) -> Record:
    return Record("a", "built", "key", {}, outputs={layer: File(path, "0" * 64, 1)})


@pytest.mark.parametrize(
    "record",
    [
        outputs("/etc/passwd"),
        outputs("../secret.png"),
        outputs("masks/../../secret.png"),
        outputs(""),
        outputs("masks/a\0.png"),
        outputs("masks/linked.png"),
        outputs("linked.png"),
        outputs("masks/inner/secret.png"),
        outputs("masks/a.png", layer="../masks"),
        Record("../../a", "built", "key", {}),
        Record("..", "built", "key", {}),
        Record("", "rejected", "key", {}),
    ],
    ids=repr,
)
def test_names_that_lead_out_of_the_data_set_are_refused(tmp_path: Path, record: Record):
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = folder_with(tmp_path, record)
    (folder / "masks" / "linked.png").symlink_to(tmp_path / "secret.png")
    (folder / "linked.png").symlink_to(tmp_path / "secret.png")
    (folder / "masks" / "inner").symlink_to(tmp_path)
    with Manifest.open(folder) as manifest:
        with pytest.raises(InputError, match="outside of it"):
            manifest.latest()
        with pytest.raises(InputError, match="outside of it"):
            manifest.find(record.stem)


def test_a_folder_of_a_data_set_may_be_a_link_and_files_in_it_links_within(tmp_path: Path):
    folder = folder_with(tmp_path, outputs("masks/b.png"))
    (folder / "masks").rename(tmp_path / "elsewhere")
    (folder / "masks").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "b.png").symlink_to("a.png")
    with Manifest.open(folder) as manifest:
        assert list(manifest.latest()) == ["a"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("outputs", "[]"), ("sources", '{"image": {}}'), ("placement", "[1]"), ("seconds", "{")],
)
def test_a_damaged_row_is_told_by_its_number(tmp_path: Path, column: str, value: str):
    folder = folder_with(tmp_path, outputs("masks/a.png"))
    with sqlite3.connect(folder / NAME) as connection:
        connection.execute(f"UPDATE records SET {column} = ?", (value,))
    with (
        Manifest.open(folder) as manifest,
        pytest.raises(InputError, match=r"manifest\.sqlite: row 1 is damaged"),
    ):
        manifest.latest()


def test_a_pair_whose_name_is_not_utf8_is_recorded(tmp_path: Path):
    stem = os.fsdecode(b"caf\xe9")
    error = InputError(f"{stem}.jpg: a name that is not UTF-8")
    folder = folder_with(tmp_path, Record(stem, "rejected", "key", {}, notes=str(error)))
    with Manifest.open(folder) as manifest:
        assert list(manifest.latest()) == ["caf\\udce9"]

"""The manifest keeps history, gives the newest, and refuses what is not one."""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path

import pytest

from hqsod.canvas import Placement
from hqsod.dataset.decisions import Decisions
from hqsod.dataset.folders import IMAGES, MASKS
from hqsod.dataset.manifest import NAME, SCHEMA, File, Manifest, Record
from hqsod.errors import InputError, OutputError

RECORD = Record(
    stem="a",
    status="built",
    recipe="key",
    sources={"image": File("a.jpg", "1", 2), "mask": File("a.png", "3", 4)},
    placement=Placement((16, 16), 2, 0, (12, 16)),
    outputs={layer: File(f"{layer}/a.png", "5", 6) for layer in (IMAGES, MASKS)},
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
        for record in (older, RECORD, Record("b", "rejected", "key", {})):
            manifest.append(record)
    with Manifest.open(tmp_path) as manifest:
        assert manifest.latest() == {"a": RECORD, "b": Record("b", "rejected", "key", {})}
        assert manifest.recipe("key") == {"canvas": 16}


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="made by hqsod build"):
        Manifest.open(tmp_path).__enter__()


def test_an_empty_file_is_no_manifest_and_becomes_one(tmp_path: Path):
    (tmp_path / NAME).touch()  # what a full disk leaves
    with pytest.raises(InputError, match="build it first"), Manifest.open(tmp_path):
        pass
    with Manifest.open(tmp_path, create=True) as manifest:
        assert manifest.latest() == {}


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
    files = {IMAGES: "images/a.png", MASKS: "masks/a.png", layer: path}
    known = {name: File(path, "0" * 64, 1) for name, path in files.items()}
    return Record("a", "built", "key", RECORD.sources, outputs=known)


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
        outputs(f"masks/{'a' * 256}/a.png"),
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


# Canvas and size of a placement are told as (height, width).
PLACED = (
    '[10,9],"top":0,"left":0',
    '[9,9],"top":-1,"left":0',
    '[9,9],"top":0,"left":1',
    '[0,9],"top":0,"left":0',
    '["x",9],"top":0,"left":0',
    '[9],"top":0,"left":0',
)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("outputs", text) for text in ("[]", "{}", '{"images": 1}', "[" * 9999)),
        *(("placement", f'{{"canvas":[9,9],"size":{text}}}') for text in PLACED),
        *(("placement", "[1]"), ("seconds", "{")),
        *(("sources", text) for text in ("{}", '{"image": {}}')),
        *(("quality", '{"iou": [1]}'), ("quality", '{"iou": "high"}'), ("score", "high")),
        *(("flagged", 7), ("notes", b"\xff"), ("stem", b"\xff"), ("recipe", b"\xff")),
    ],
    ids=lambda value: str(value)[:60],
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


def test_a_name_too_long_for_a_file_is_refused(tmp_path: Path):
    folder = folder_with(tmp_path, outputs("masks/a.png"))
    with sqlite3.connect(folder / NAME) as connection:
        connection.execute("UPDATE records SET stem = ?", ("é" * 126,))
    with Manifest.open(folder) as manifest, pytest.raises(InputError, match="outside of it"):
        manifest.latest()


def test_a_long_name_that_is_not_utf8_is_recorded_as_far_as_it_fits(tmp_path: Path):
    folder = folder_with(tmp_path, Record(os.fsdecode(b"\xe9" * 251), "rejected", "key", {}))
    with Manifest.open(folder) as manifest:
        (stem,) = manifest.latest()
    assert stem == ("\\udce9" * 42)[:251]


def test_a_pair_whose_name_is_not_utf8_is_recorded(tmp_path: Path):
    stem = os.fsdecode(b"caf\xe9")
    error = InputError(f"{stem}.jpg: a name that is not UTF-8")
    folder = folder_with(tmp_path, Record(stem, "rejected", "key", {}, notes=str(error)))
    with Manifest.open(folder) as manifest:
        assert list(manifest.latest()) == ["caf\\udce9"]


@pytest.mark.parametrize("settings", ["[1]", '{"upscaler": []}', "{", "[" * 9999])
def test_a_damaged_recipe_is_told(tmp_path: Path, settings: str):
    folder = folder_with(tmp_path, outputs("masks/a.png"))
    with sqlite3.connect(folder / NAME) as connection:
        connection.execute("UPDATE recipes SET settings = ?", (settings,))
    with Manifest.open(folder) as manifest:
        for read in (manifest.newest_recipe, lambda: manifest.recipe("key")):
            with pytest.raises(InputError, match="a recipe is damaged"):
                read()
        with pytest.raises(InputError, match="a recipe is damaged"):
            manifest.recipe("another")


def test_a_damaged_decision_is_told(tmp_path: Path):
    folder = folder_with(tmp_path, outputs("masks/a.png"))
    with Decisions.open(folder) as decisions:
        row = "1, '', 'a', 'first', 'anna', x'ff', '', ''"
        decisions._connection.execute(f"INSERT INTO decisions VALUES ({row})")
        for read in (decisions.latest, lambda: decisions.history("a")):
            with pytest.raises(InputError, match="a decision is damaged"):
                read()


BOMB = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


# Without what a careless reader takes for a comment it is ours.
DISGUISED = SCHEMA.replace("'built'", "'--', 'any\nbuilt'")


@pytest.mark.parametrize(
    "statements",
    [
        f"CREATE TRIGGER t AFTER INSERT ON records BEGIN SELECT ({BOMB}); END",
        f"DROP VIEW latest; CREATE VIEW latest AS {BOMB}",
        "CREATE VIRTUAL TABLE t USING fts5(x)",
        "DROP TABLE recipes; CREATE VIRTUAL TABLE recipes USING fts5(key, settings)",
        "CREATE TABLE t (x DEFAULT (randomblob(1000000000)))",
        "CREATE INDEX i ON records (length(zeroblob(9)))",
        "DROP TABLE recipes; CREATE TABLE recipes (key, settings)",
        "DROP TABLE records; CREATE TABLE records (key)",
        "DROP TABLE records;" + DISGUISED,
    ],
    ids=lambda text: text[:50],
)
def test_a_schema_that_is_not_ours_is_refused(tmp_path: Path, statements: str):
    folder = folder_with(tmp_path, outputs("masks/a.png"))
    with sqlite3.connect(folder / NAME) as connection:
        connection.executescript(statements)
    before = (folder / NAME).read_bytes()
    for create in (False, True):
        with pytest.raises(OutputError, match="do not use this data set"):
            Manifest.open(folder, create=create).__enter__()
    assert (folder / NAME).read_bytes() == before


@pytest.mark.parametrize("ending", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("create", [False, True])
def test_a_manifest_is_no_link_and_no_pipe(tmp_path: Path, ending: str, create: bool):
    folder = folder_with(tmp_path, outputs("masks/a.png"))
    file = folder / f"{NAME}{ending}"
    if not ending:
        file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="a link to"):
        Manifest.open(folder, create=create).__enter__()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(OutputError, match="not a file"):
        Manifest.open(folder, create=create).__enter__()


def test_a_journal_deletes_nothing(tmp_path: Path):
    """SQLite removes the file that a journal names as that of several databases."""
    folder, thesis = folder_with(tmp_path, outputs("masks/a.png")), tmp_path / "thesis.txt"
    thesis.write_text("mine")
    connection = sqlite3.connect(folder / NAME)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("INSERT INTO recipes VALUES ('big', hex(zeroblob(99999)))")
    journal, whole = (folder / f"{NAME}-journal").read_bytes(), (folder / NAME).read_bytes()
    connection.rollback()
    connection.close()
    name = bytes(thesis)
    ends = journal[:8]  # the magic that it begins with, too
    named = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name))
    for tail, kept in ((b"", True), (named + ends, False)):
        (folder / NAME).write_bytes(whole)
        (folder / f"{NAME}-journal").write_bytes(journal + tail)
        if kept:  # what a kill leaves: the unfinished row is gone, the others are there
            with Manifest.open(folder) as manifest:
                assert list(manifest.latest()) == ["a"]
        else:
            with pytest.raises(OutputError, match="names another file"):
                Manifest.open(folder).__enter__()
    assert thesis.read_text() == "mine"

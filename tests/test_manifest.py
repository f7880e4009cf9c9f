"""The manifest keeps history, gives the newest, and refuses what is not one."""

from __future__ import annotations

from pathlib import Path

import pytest

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

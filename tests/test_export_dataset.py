"""Exports are read back by the libraries people train with, and are the same after a kill."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from hqsod import export_dataset as job
from hqsod import images
from hqsod.dataset.decisions import Decisions
from hqsod.dataset.manifest import Manifest
from hqsod.errors import OutputError, SettingsError
from hqsod.export_dataset import export_dataset
from hqsod.review.apply import apply
from tests.built import built

FORMATS = ("imagefolder", "webdataset", "parquet")


@pytest.fixture
def applied(tmp_path: Path) -> Path:
    """Seven pairs of which one is rejected and one taken as upscaled, applied."""
    folder = built(tmp_path / "set", 7, size=48)
    with Manifest.open(folder) as manifest, Decisions.open(folder) as decisions:
        records = manifest.latest()
        decisions.add(records["pair_0003"], "anna", "reject", "", 0)
        decisions.add(records["pair_0005"], "anna", "upscaled", "", 0)
    apply(folder)
    return folder


def rows_by_datasets(folder: Path, cache: Path) -> dict[str, dict]:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
    return {row["stem"]: row for row in rows}


@pytest.mark.slow  # imports datasets and pyarrow
@pytest.mark.parametrize("form", ["imagefolder", "parquet"])
def test_datasets_reads_back_what_was_decided(applied: Path, tmp_path: Path, form: str) -> None:
    done = export_dataset(applied, form, tmp_path / "out", pairs_in_shard=4)
    assert (done.pairs, done.shards, done.written, done.stale) == (6, 2, 2, 0)
    rows = rows_by_datasets(tmp_path / "out", tmp_path / "cache")
    assert sorted(rows) == [f"pair_{number:04d}" for number in (0, 1, 2, 4, 5, 6)]
    for stem, row in rows.items():
        expected = images.read_mask(applied / "final-masks" / f"{stem}.png")
        np.testing.assert_array_equal(np.asarray(row["mask"]), expected)
        expected = images.read_image(applied / "images" / f"{stem}.png")
        np.testing.assert_array_equal(np.asarray(row["image"]), expected)
    assert rows["pair_0005"]["version"] == "upscaled"
    assert rows["pair_0006"]["version"] == "refined"
    assert rows["pair_0000"]["flagged"] is True


@pytest.mark.slow  # imports webdataset
def test_webdataset_reads_back_what_was_decided(applied: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    export_dataset(applied, "webdataset", tmp_path / "out", pairs_in_shard=4)
    shards = sorted(str(path) for path in (tmp_path / "out" / "data").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["stem"] for sample in samples] == sorted(
        path.stem for path in (applied / "final-masks").iterdir()
    )
    for sample in samples:
        expected = images.read_mask(applied / "final-masks" / f"{sample['__key__']}.png")
        np.testing.assert_array_equal(sample["mask.png"][..., 0], expected)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_cut_off_ends_as_a_whole_one(
    applied: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    export_dataset(applied, form, tmp_path / "whole", pairs_in_shard=2)
    write, pattern = job._FORMATS[form]
    calls = []

    def cut_off(part: Path, items: list) -> None:
        calls.append(part)
        write(part, items)
        if len(calls) == 2:
            raise KeyboardInterrupt  # the shard is written but has not got its name

    monkeypatch.setitem(job._FORMATS, form, (cut_off, pattern))
    with pytest.raises(KeyboardInterrupt):
        export_dataset(applied, form, tmp_path / "cut", pairs_in_shard=2)
    monkeypatch.undo()
    done = export_dataset(applied, form, tmp_path / "cut", pairs_in_shard=2)
    assert done.written == 2
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert export_dataset(applied, form, tmp_path / "cut", pairs_in_shard=2).written == 0


def test_a_changed_decision_remakes_its_shard_alone(applied: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dataset(applied, "imagefolder", out, pairs_in_shard=2)
    with Manifest.open(applied) as manifest, Decisions.open(applied) as decisions:
        decisions.add(manifest.latest()["pair_0006"], "anna", "upscaled", "", 0)
    assert export_dataset(applied, "imagefolder", out, pairs_in_shard=2).stale == 1
    apply(applied)
    done = export_dataset(applied, "imagefolder", out, pairs_in_shard=2)
    assert (done.stale, done.written) == (0, 1)


def test_shards_no_longer_wanted_are_removed(applied: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dataset(applied, "webdataset", out, pairs_in_shard=1)
    export_dataset(applied, "webdataset", out, pairs_in_shard=6)
    assert [path.name for path in (out / "data").iterdir()] == ["train-00000.tar"]


def test_without_final_masks_the_refined_ones_are_taken_and_it_is_said(tmp_path: Path) -> None:
    done = export_dataset(built(tmp_path / "set", 3, size=48), "imagefolder")
    assert (done.pairs, done.masks) == (3, "the last version of each, decisions left aside")
    lines = (done.folder / "data/train/shard-00000/metadata.jsonl").read_text().splitlines()
    assert {json.loads(line)["version"] for line in lines} == {"refined"}


def test_a_missing_picture_costs_only_its_pair(applied: Path, tmp_path: Path) -> None:
    (applied / "images" / "pair_0001.png").unlink()
    done = export_dataset(applied, "imagefolder", tmp_path / "out")
    assert done.pairs == 5
    assert [line.partition(":")[0] for line in done.failed] == ["pair_0001"]


def test_what_is_not_ours_is_left_alone(applied: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        export_dataset(applied, "imagefolder", tmp_path / "other")
    export_dataset(applied, "imagefolder", tmp_path / "out")
    with pytest.raises(OutputError, match="holds imagefolder"):
        export_dataset(applied, "webdataset", tmp_path / "out")
    with pytest.raises(SettingsError, match="csv"):
        export_dataset(applied, "csv", tmp_path / "out")

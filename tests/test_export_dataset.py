"""Exports are read back by the libraries people train with, and are the same after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hqsod.export_dataset as job
from hqsod import encoding, images
from hqsod.dataset.decisions import Decisions
from hqsod.dataset.lock import sole_run
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.errors import InputError, OutputError, SettingsError
from hqsod.export_dataset import export_dataset
from hqsod.export_dataset.coco import annotation
from hqsod.export_dataset.formats import FORMATS
from hqsod.review.apply import apply
from hqsod.review.linked import link
from tests.built import built, disc, photograph

NONE = 0.0  # no validation split


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
    """Rows of both splits, by stem."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    splits = datasets.load_dataset(str(folder), cache_dir=str(cache))
    return {row["stem"]: {**row, "split": split} for split in splits for row in splits[split]}


@pytest.mark.slow  # imports datasets and pyarrow
@pytest.mark.parametrize("form", ["imagefolder", "parquet"])
def test_datasets_reads_back_what_was_decided(applied: Path, tmp_path: Path, form: str) -> None:
    done = export_dataset(applied, form, tmp_path / "out", pairs_in_shard=4, validation=0.3)
    assert done.pairs == {"train": 4, "validation": 2}
    assert (done.shards, done.written, done.stale) == (2, 2, 0)
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
    held_out = [stem for stem, row in rows.items() if row["split"] == "validation"]
    assert sorted(held_out) == ["pair_0001", "pair_0005"]  # as on every machine


@pytest.mark.slow  # imports webdataset
def test_webdataset_reads_back_what_was_decided(applied: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    export_dataset(applied, "webdataset", tmp_path / "out", 4, NONE)
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
    shards = export_dataset(applied, form, tmp_path / "whole" / "set", 2, 0.3).shards
    whole, calls = FORMATS[form], []

    def cut_off(part: Path, items: list) -> None:
        calls.append(part)
        whole.write(part, items)
        if len(calls) == 2:
            raise KeyboardInterrupt  # the shard is written but has not got its name

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, form, replace(whole, write=cut_off))
        with pytest.raises(KeyboardInterrupt):
            export_dataset(applied, form, tmp_path / "cut" / "set", 2, 0.3)
    done = export_dataset(applied, form, tmp_path / "cut" / "set", 2, 0.3)
    assert done.written == shards - 1
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert export_dataset(applied, form, tmp_path / "cut" / "set", 2, 0.3).written == 0


def test_a_changed_decision_remakes_its_shard_alone(applied: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dataset(applied, "imagefolder", out, pairs_in_shard=2)
    with Manifest.open(applied) as manifest, Decisions.open(applied) as decisions:
        decisions.add(manifest.latest()["pair_0006"], "anna", "upscaled", "", 0)
    assert export_dataset(applied, "imagefolder", out, pairs_in_shard=2).stale == 1
    apply(applied)
    done = export_dataset(applied, "imagefolder", out, pairs_in_shard=2)
    assert (done.stale, done.written) == (0, 1)


def test_a_mask_painted_since_makes_the_final_one_stale(applied: Path, tmp_path: Path) -> None:
    encoding.write_png(applied / "corrected-masks" / "pair_0006-1.png", disc(48, 0.1))
    with Manifest.open(applied) as manifest, Decisions.open(applied) as decisions:
        decisions.add(manifest.latest()["pair_0006"], "anna", "corrected-1", "", 0)
    assert export_dataset(applied, "imagefolder", tmp_path / "out").stale == 1
    apply(applied)
    assert export_dataset(applied, "imagefolder", tmp_path / "out").stale == 0


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A linked folder of one pair, with a candidate."""
    encoding.write_png(tmp_path / "photos" / "a.png", photograph(48))
    (tmp_path / "gt").mkdir()
    Image.fromarray(disc(48, 0.3)).save(tmp_path / "gt" / "a.bmp")
    encoding.write_png(tmp_path / "sam" / "a.png", disc(48, 0.2))
    link(tmp_path / "set", tmp_path / "photos", tmp_path / "gt", {"sam": tmp_path / "sam"})
    return tmp_path / "set"


def test_a_candidate_is_exported_only_when_it_was_decided_for(linked: Path, tmp_path: Path) -> None:
    def exported() -> tuple[str, int]:
        done = export_dataset(linked, "imagefolder", tmp_path / "out")
        (table,) = done.folder.glob("data/train/shard-*/metadata.jsonl")
        return json.loads(table.read_text())["version"], done.stale

    assert exported() == ("masks", 0)
    apply(linked)
    assert exported() == ("masks", 0)
    with Manifest.open(linked) as manifest, Decisions.open(linked) as decisions:
        decisions.add(manifest.latest()["a"], "anna", "sam", "", 0)
    assert exported() == ("sam", 1)
    apply(linked)
    assert exported() == ("sam", 0)


def test_where_all_pairs_are_rejected_none_is_exported(linked: Path, tmp_path: Path) -> None:
    with Manifest.open(linked) as manifest, Decisions.open(linked) as decisions:
        decisions.add(manifest.latest()["a"], "anna", "reject", "", 0)
    assert apply(linked).counts == {}
    with pytest.raises(InputError, match="nothing to export"):
        export_dataset(linked, "imagefolder", tmp_path / "out")


def test_shards_no_longer_wanted_are_removed(applied: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dataset(applied, "webdataset", out, 1, NONE)
    export_dataset(applied, "webdataset", out, 6, NONE)
    assert [path.name for path in (out / "data").iterdir()] == ["train-00000.tar"]


def test_without_final_masks_the_refined_ones_are_taken_and_it_is_said(tmp_path: Path) -> None:
    done = export_dataset(built(tmp_path / "set", 3, size=48), "imagefolder")
    assert done.masks == "the refined ones or else the first, decisions left aside"
    assert done.pairs == {"train": 2, "validation": 1}  # one at least where there are two
    lines = (done.folder / "data/train/shard-00000/metadata.jsonl").read_text().splitlines()
    assert {json.loads(line)["version"] for line in lines} == {"refined"}


def test_a_missing_picture_costs_only_its_pair(applied: Path, tmp_path: Path) -> None:
    (applied / "images" / "pair_0001.png").unlink()
    done = export_dataset(applied, "imagefolder", tmp_path / "out")
    assert sum(done.pairs.values()) == 5
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
    (tmp_path / "out" / "README.md").write_text("of a project of mine")
    export_dataset(applied, "imagefolder", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "of a project of mine"


def test_an_export_of_another_data_set_is_not_replaced(applied: Path, tmp_path: Path) -> None:
    export_dataset(applied, "coco", tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OutputError, match="holds an export of another data set"):
        export_dataset(built(tmp_path / "other", 3, size=32), "coco", tmp_path / "out")
    assert contents(tmp_path / "out") == before
    moved = applied.rename(tmp_path / "moved")
    with Manifest.open(moved) as manifest:
        manifest.append(manifest.latest()["pair_0000"])
    assert export_dataset(moved, "coco", tmp_path / "out").written == 0
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    del told["data_set"]  # as earlier versions wrote it
    (tmp_path / "out" / "export.json").write_text(json.dumps(told))
    assert export_dataset(moved, "coco", tmp_path / "out").written == 0


OUTSIDE = ("{outside}", "../outside", "data/train/../../../outside", "data", "data/train", ".", "")


@pytest.mark.parametrize("shard", OUTSIDE)
def test_a_strangers_export_has_nothing_deleted(applied: Path, tmp_path: Path, shard: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").write_text("mine")
    folder = applied / "exports" / "imagefolder"
    folder.mkdir(parents=True)
    told = {"format": "imagefolder", "shards": {shard.format(outside=outside): "0"}}
    (folder / "export.json").write_text(json.dumps(told))
    with pytest.raises(OutputError, match="names"):
        export_dataset(applied, "imagefolder")
    assert (outside / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("link", ["exports", "exports/imagefolder", "exports/imagefolder/data"])
def test_no_link_leads_an_export_elsewhere(applied: Path, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    shard = outside / "train" / "shard-00001"
    shard.mkdir(parents=True)
    (shard / "thesis.txt").write_text("mine")
    before = contents(outside)
    (applied / link).parent.mkdir(parents=True, exist_ok=True)
    (applied / link).symlink_to(outside)
    if link.endswith("data"):
        told = {"format": "imagefolder", "shards": {"data/train/shard-00001": "0"}}
        (applied / "exports/imagefolder/export.json").write_text(json.dumps(told))
    with pytest.raises(OutputError, match="a link"):
        export_dataset(applied, "imagefolder")
    assert contents(outside) == before


def test_a_final_mask_that_is_a_link_is_not_exported(applied: Path, tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("mine")
    mask = applied / "final-masks" / "pair_0001.png"
    mask.unlink()
    mask.symlink_to(tmp_path / "private.txt")
    done = export_dataset(applied, "imagefolder", tmp_path / "out")
    assert sum(done.pairs.values()) == 5
    assert [line.partition(":")[0] for line in done.failed] == ["pair_0001"]
    assert not any(b"mine" in path.read_bytes() for path in done.folder.rglob("*.png"))


def test_a_card_that_is_a_link_is_not_copied(applied: Path, tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("mine")
    (applied / "README.md").unlink(missing_ok=True)
    (applied / "README.md").symlink_to(tmp_path / "private.txt")
    with pytest.raises(OutputError, match="a link to"):
        export_dataset(applied, "coco", tmp_path / "out")
    assert not any(b"mine" in path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize("form", ["webdataset", "coco"])
@pytest.mark.parametrize("layer", ["images", "hq-masks"])
def test_what_cannot_be_read_whole_costs_its_pair(tmp_path: Path, form: str, layer: str) -> None:
    folder = built(tmp_path / "set", 4, size=48)
    for number in (0, 1):
        (folder / layer / f"pair_000{number}.png").unlink()
    os.mkfifo(folder / layer / "pair_0000.png")
    with (folder / layer / "pair_0001.png").open("wb") as file:
        file.truncate(2**40)
    done = export_dataset(folder, form, tmp_path / "out")
    assert sum(done.pairs.values()) == 2
    assert [line.partition(":")[0] for line in done.failed] == ["pair_0000", "pair_0001"]


@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "coco"])
def test_a_damaged_file_costs_only_its_pair(applied: Path, tmp_path: Path, form: str) -> None:
    for name in ("images/pair_0000.png", "final-masks/pair_0001.png", "final-masks/pair_0002.png"):
        whole = (applied / name).read_bytes()
        (applied / name).write_bytes(whole[: len(whole) // 2] if name.endswith("2.png") else b"")
    done = export_dataset(applied, form, tmp_path / "out")
    assert sum(done.pairs.values()) == 3
    assert [line.partition(":")[0] for line in done.failed] == [
        f"pair_000{number}" for number in range(3)
    ]


def test_a_mask_that_coco_cannot_read_costs_only_its_pair(tmp_path: Path) -> None:
    def dim(record: Record) -> Record:
        """The first pair's refined mask is saved with its object as 90, as it is recorded."""
        if record.stem != "pair_0000":
            return record
        data = encoding.encode_png(np.full((48, 48), 90, np.uint8))
        (tmp_path / "set/hq-masks/pair_0000.png").write_bytes(data)
        file = File("hq-masks/pair_0000.png", hashlib.sha256(data).hexdigest(), len(data))
        return replace(record, outputs=record.outputs | {"hq-masks": file})

    folder = built(tmp_path / "set", 3, size=48, change=dim)
    done = export_dataset(folder, "coco", tmp_path / "out")
    assert sum(done.pairs.values()) == 2
    assert "pair_0000.png: levels 90" in done.failed[0]


SHARDS = [f'{{"format": "coco", "shards": {shards}}}' for shards in ("3", "[[1, 2]]")]


@pytest.mark.parametrize("text", ["", "[]", "{}", *SHARDS, "[" * 9999])
def test_a_damaged_list_of_shards_is_told(applied: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "export.json").write_text(text)
    with pytest.raises(OutputError, match="cannot be read"):
        export_dataset(applied, "coco", tmp_path / "out")


def test_an_export_waits_for_no_other_job(applied: Path, tmp_path: Path) -> None:
    with sole_run(applied), pytest.raises(OutputError, match="another run is at work"):
        export_dataset(applied, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_cannot_be_written_to_is_exported(
    applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (applied / ".lock").unlink()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != applied)
    assert export_dataset(applied, "coco", tmp_path / "out").shards == 2
    assert not (applied / ".lock").exists()


def test_a_full_disk_leaves_nothing_unfinished(
    applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copyfile", fill)
    for form in ("imagefolder", "coco"):
        with pytest.raises(OutputError, match="No space left"):
            export_dataset(applied, form, tmp_path / form)
        assert [path.name for path in (tmp_path / form).rglob("*.part")] == []


def shapes() -> dict[str, np.ndarray]:
    """Masks with all that contours can be: a single pixel, the border, corners, a hole, a lake."""
    blank = np.zeros((24, 31), bool)
    dot, whole, corners, ring, noise = (blank.copy() for _ in range(5))
    dot[0, 30] = True
    whole[:] = True
    corners[3:6, 3:6] = corners[6:9, 6:9] = corners[15:, 20:] = True
    ring[2:20, 2:20] = True
    ring[5:10, 5:10] = False
    noise[:] = np.random.default_rng(0).random(blank.shape) < 0.4
    return {"dot": dot, "whole": whole, "corners": corners, "ring": ring, "noise": noise}


@pytest.mark.parametrize("name", shapes())
def test_coco_masks_are_exact(name: str) -> None:
    from skimage.draw import polygon2mask

    mask = shapes()[name]
    told = annotation(mask)
    shape = told["segmentation"]
    if isinstance(shape, dict):
        runs = np.repeat(np.arange(len(shape["counts"])) % 2, shape["counts"])
        drawn = runs.astype(bool).reshape(shape["size"], order="F")
    else:
        points = [np.reshape(part, (-1, 2))[:, ::-1] - 0.5 for part in shape]
        drawn = np.any([polygon2mask(mask.shape, part) for part in points], axis=0)
    assert isinstance(shape, dict) is (name in ("ring", "noise"))
    np.testing.assert_array_equal(drawn, mask)
    rows, columns = np.nonzero(mask)
    left, top, width, height = told["bbox"]
    assert (left, top) == (columns.min(), rows.min())
    assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
    assert told["area"] == np.count_nonzero(mask)


def test_coco_names_the_images_that_lie_beside_it(applied: Path, tmp_path: Path) -> None:
    done = export_dataset(applied, "coco", tmp_path / "out", validation=0.3)
    assert done.shards == 2
    stems = []
    for split, count in done.pairs.items():
        told = json.loads((tmp_path / "out" / split / "annotations.json").read_text())
        assert len(told["images"]) == len(told["annotations"]) == count
        for image in told["images"]:
            path = tmp_path / "out" / split / "images" / image["file_name"]
            assert images.read_size(path) == (image["height"], image["width"])
            stems.append(image["stem"])
    assert sorted(stems) == [f"pair_{number:04d}" for number in (0, 1, 2, 4, 5, 6)]


@pytest.mark.slow  # imports datasets and webdataset
@pytest.mark.parametrize("form", FORMATS)
def test_the_cards_example_runs(
    applied: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("webdataset", "pyarrow"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export_dataset(applied, form, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec((tmp_path / "out" / "README.md").read_text().split("```python")[1].split("```")[0], names)
    assert "image" in names


def test_what_is_no_data_set_is_left_as_it_was(tmp_path: Path):
    with pytest.raises(InputError, match=r"no manifest\.sqlite"):
        export_dataset(tmp_path, "imagefolder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", range(9))
def test_a_kill_at_any_step_of_a_change_loses_no_pair(
    applied: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step writes the state, removes shards or gives one its name."""
    out = tmp_path / "out"
    export_dataset(applied, "imagefolder", out, 2, NONE)
    before, steps = contents(out), iter(range(at + 1))

    def stopping(step: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            if next(steps, None) == at:
                raise KeyboardInterrupt
            return step(*arguments)

        return run

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(job, "_save_state", stopping(job._save_state))
        patch.setattr(job, "_remove", stopping(job._remove))
        patch.setattr(Path, "rename", stopping(Path.rename))
        export_dataset(applied, "imagefolder", out, 3, NONE)
    export_dataset(applied, "imagefolder", out, 2, NONE)
    assert contents(out) == before


def test_a_kill_before_the_first_shard_does_not_block_the_folder(
    applied: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".0123456789abcdef.part").write_text("{")
    assert export_dataset(applied, "coco", tmp_path / "out").written == 2


@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
@pytest.mark.parametrize("layer", ["images", "hq-masks"])
def test_a_link_anywhere_gives_only_what_was_recorded(
    tmp_path: Path, layer: str, form: str
) -> None:
    key = tmp_path / "home/.ssh/id_rsa"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"a private key")

    def steal(record: Record) -> Record:
        file = File("linked/.ssh/id_rsa", "0" * 64, key.stat().st_size)
        taken = {layer: file} if record.stem == "pair_0001" else {}
        return replace(record, outputs=record.outputs | taken)

    dest = built(tmp_path / "set", 3, size=48, change=steal)
    (dest / "linked").symlink_to(tmp_path / "home")
    done = export_dataset(dest, form, tmp_path / "out")
    assert [line.partition(":")[0] for line in done.failed] == ["pair_0001"]
    files = [path for path in done.folder.rglob("*") if path.is_file()]
    assert not any(b"a private key" in path.read_bytes() for path in files)


@pytest.mark.parametrize("layer", ["images", "hq-masks"])
def test_a_linked_folder_gives_only_what_was_recorded(tmp_path: Path, layer: str) -> None:
    dest, private = built(tmp_path / "set"), tmp_path / "private"
    (dest / layer).rename(private)
    (dest / layer).symlink_to(private)
    assert not export_dataset(dest, "imagefolder", tmp_path / "same").failed
    one = sorted(private.iterdir())[0]
    one.write_bytes(b"a key of the user's")
    failed = export_dataset(dest, "imagefolder", tmp_path / "other").failed
    assert [line.partition(":")[0] for line in failed] == [one.stem]
    for file in private.iterdir():
        file.write_bytes(b"a key of the user's")
    with pytest.raises(InputError, match=r"nothing to export: .*not the file that the manifest"):
        export_dataset(dest, "imagefolder", tmp_path / "none")

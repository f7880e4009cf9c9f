"""The build job, whole: what it makes, what it keeps, what it rejects, and what a kill costs."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from hqsod import addresses, decoding, images, runner
from hqsod.building import engines
from hqsod.building.engines import LocalEngine, load_engine
from hqsod.building.home import made_with
from hqsod.building.pipeline import build
from hqsod.building.recipes import RECIPES, choose_recipe
from hqsod.cli import app, main
from hqsod.dataset import card
from hqsod.dataset.contact_sheet import CELL
from hqsod.dataset.layouts import find_pairs
from hqsod.dataset.manifest import NAME, Manifest, connect
from hqsod.errors import InputError, OutputError, SettingsError
from hqsod.images import Array
from hqsod.inference.refiner import GuidedRefiner
from hqsod.inference.runtime import Runtime
from hqsod.models.contour_refiner import ContourRefiner
from hqsod.models.purnet import build_purnet
from hqsod.weights import save as save_weights
from tests.conftest import random_picture, save, write_pair
from tests.hostile import bomb

FILTERS = ["--upscaler", "bicubic", "--refiner", "guided", "--predictor", "none"]
SMALL = replace(RECIPES["preview"].changed("bicubic", "guided", "none"), canvas=256, name="small")
FOLDERS = ("images", "masks", "hq-masks")


def load(**changes: object) -> LocalEngine:
    recipe = replace(SMALL, **changes)  # type: ignore[arg-type]
    return load_engine(recipe, Runtime())


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every picture the job wrote."""
    files = (path for kind in FOLDERS for path in sorted((folder / kind).iterdir()))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_a_data_set_is_built_as_published(source: Path, tmp_path: Path):
    pairs = find_pairs(source)
    summary = build(pairs, tmp_path / "dest", load())
    assert (summary.built, summary.kept, summary.rejected) == (4, 0, ())
    with Manifest.open(tmp_path / "dest") as manifest:
        records = manifest.latest()
    for pair in pairs:
        record = records[pair.stem]
        assert record.placement is not None
        rows, columns = record.placement.window
        with Image.open(pair.mask) as mask:
            size = (4 * mask.width, 4 * mask.height)
            expected = np.asarray(mask.resize(size, Image.Resampling.BICUBIC))
        built = {
            name: np.asarray(Image.open(tmp_path / "dest" / file.path))
            for name, file in record.outputs.items()
        }
        assert (built["masks"][rows, columns] == expected).all()
        assert {array.shape[:2] for array in built.values()} == {(256, 256)}
        assert built["images"].shape == (256, 256, 3)
        assert all(array.dtype == np.uint8 for array in built.values())
        assert np.count_nonzero(built["masks"]) == np.count_nonzero(expected)
        for name, file in record.outputs.items():
            data = (tmp_path / "dest" / file.path).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.size), name


def test_a_second_run_does_only_what_changed(source: Path, tmp_path: Path):
    dest = tmp_path / "dest"
    build(find_pairs(source), dest, load())
    before = digests(dest)
    assert build(find_pairs(source), dest, load()).kept == 4
    (dest / "masks" / "a.png").unlink()
    save(source / "images" / "d.png", random_picture((40, 60, 3)))
    summary = build(find_pairs(source), dest, load())
    assert (summary.built, summary.kept) == (2, 2)
    changed = {name for name, digest in digests(dest).items() if digest != before[name]}
    assert {"images/d.png"} <= changed <= {"images/d.png", "hq-masks/d.png"}
    assert summary.replaced == 2  # of the same source, so nobody need ask for it


def test_other_settings_replace_nothing_unasked(source: Path, tmp_path: Path):
    pairs, dest = find_pairs(source), tmp_path / "dest"
    build(pairs, dest, load())
    before = {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match=r"4 of its pairs .*refiner guided -> none"):
        build(pairs, dest, load(refiner="none"))
    assert {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()} == before
    summary = build(pairs, dest, load(refiner="none"), replace=True)
    assert (summary.built, summary.replaced) == (4, 4)
    assert made_with(dest) == load(refiner="none").settings
    assert build(pairs, dest, load(refiner="none")).kept == 4


def test_another_source_adds_and_replaces_nothing_unasked(source: Path, tmp_path: Path):
    dest, other = tmp_path / "dest", tmp_path / "other"
    build(find_pairs(source), dest, load())
    write_pair(other, "new")
    with pytest.raises(SettingsError, match="holds 4 pairs of another source, and 1 would be"):
        build(find_pairs(other), dest, load())
    summary = build(find_pairs(other), dest, load(), add=True)
    assert (summary.built, summary.replaced, len(summary.left)) == (1, 0, 4)
    save(other / "images" / "d.png", random_picture((40, 60, 3)))
    save(other / "masks" / "d.png", images.read_mask(source / "masks" / "d.png"))
    with pytest.raises(SettingsError, match=r"1 of its pairs .*source/images/d\.png"):
        build(find_pairs(other), dest, load(), add=True)
    assert build(find_pairs(other), dest, load(), replace=True).replaced == 1


def test_one_relative_name_in_two_folders_is_two_sources(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other, dest = tmp_path / "b" / "source", tmp_path / "dest"
    for stem, name in (("a", "coffee"), ("b c", "chelsea")):
        write_pair(other, stem, name)
    monkeypatch.chdir(tmp_path)
    build(find_pairs(Path("source")), dest, load())
    monkeypatch.chdir(other.parent)
    with pytest.raises(SettingsError, match="built from other files of the same names"):
        build(find_pairs(Path("source")), dest, load())
    with connect(dest) as connection, connection:  # as earlier versions recorded it
        old = f"replace(sources, '{tmp_path}/', '')"
        connection.execute(f"UPDATE records SET sources = {old}")
    with pytest.raises(SettingsError, match="such as source/images/a"):
        build(find_pairs(Path("source")), dest, load())
    assert build(find_pairs(source), dest, load()).kept == 4


def test_an_image_that_cannot_be_read_lets_no_other_source_in(source: Path, tmp_path: Path):
    build(find_pairs(source), tmp_path / "dest", load())
    for stem in ("a", "new"):
        write_pair(tmp_path / "other", stem)
    pairs = find_pairs(tmp_path / "other")
    (tmp_path / "other" / "images" / "a.png").unlink()
    with pytest.raises(SettingsError, match="4 pairs of another source, and 1 would be added"):
        build(pairs, tmp_path / "dest", load())


def test_masks_that_a_pair_no_longer_has_are_removed(source: Path, tmp_path: Path):
    pairs, dest = find_pairs(source), tmp_path / "dest"
    build(pairs, dest, load())
    build(pairs[1:], dest, load(refiner="none"), replace=True)
    assert [path.stem for path in (dest / "hq-masks").iterdir()] == [pairs[0].stem]
    build(pairs, dest, load(refiner="none"), replace=True)
    assert find_pairs(dest)[0].mask.parent.name == "masks"


def test_what_a_full_disk_left_of_the_manifest_is_none(source: Path, tmp_path: Path):
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / NAME).touch()
    command = ["build", str(source), str(dest), *FILTERS, "--canvas", "256"]
    answer = CliRunner().invoke(app, command)
    assert "4 built" in answer.stdout, answer.output
    (dest / NAME).write_bytes(b"")
    with pytest.raises(OutputError, match="and no manifest"):
        build(find_pairs(source), dest, load())


def test_a_readme_of_the_users_stays(source: Path, tmp_path: Path, capsys):
    build(find_pairs(source), tmp_path, load())
    (tmp_path / "README.md").write_text("of a project of mine")
    build(find_pairs(source), tmp_path, load())
    assert (tmp_path / "README.md").read_text() == "of a project of mine"
    assert "README.md: not hqsod's" in capsys.readouterr().err


def test_a_source_may_move_and_grow(source: Path, tmp_path: Path):
    build(find_pairs(source), tmp_path / "dest", load())
    moved = source.rename(tmp_path / "moved")
    write_pair(moved, "new")
    summary = build(find_pairs(moved), tmp_path / "dest", load())
    assert (summary.built, summary.replaced, summary.kept) == (1, 0, 4)


def test_a_data_set_goes_on_as_it_was_made(source: Path, tmp_path: Path, monkeypatch):
    """Whatever lies in the cache, whatever the machine is best at, and as often as one likes."""
    command = ["build", str(source), str(tmp_path / "dest")]
    options = [*FILTERS, "--canvas", "256", "--fallback", "--precision", "bf16"]
    assert CliRunner().invoke(app, [*command, *options]).exit_code == 0
    monkeypatch.setattr("hqsod.weights.at_hand", lambda name: True)
    monkeypatch.setattr("hqsod.inference.torch_devices.has_native_bf16", lambda device: False)
    monkeypatch.setattr("hqsod.building.engines.GPU_BATCH", 8)
    write_pair(source, "new")
    answer = CliRunner().invoke(app, command)
    assert "1 built, 4 up to date" in answer.stdout, answer.output
    assert "images by bicubic, masks by guided" in answer.stdout
    answer = CliRunner().invoke(app, [*command, *options])
    assert "0 built, 5 up to date" in answer.stdout, answer.output
    answer = CliRunner().invoke(app, [*command, "--recipe", "preview"])
    assert isinstance(answer.exception, SettingsError)
    assert "add --replace" in str(answer.exception)
    answer = CliRunner().invoke(app, [*command, "--no-fallback", "--replace"])
    assert "5 built (5 of them again)" in answer.stdout, answer.output


def test_settings_of_a_stranger_are_no_default(source: Path, tmp_path: Path):
    build(find_pairs(source), tmp_path, load())

    def write(settings: str) -> None:
        with connect(tmp_path) as connection, connection:
            connection.execute("UPDATE recipes SET settings = ?", (settings,))

    for settings in ("{}", '{"canvas": "1600"}'):
        write(settings)
        assert made_with(tmp_path) is None
    with Manifest.open(tmp_path) as manifest:
        card.write(tmp_path, manifest)  # which needs none of them
    write('{"recipe": ["preview"]}')
    with pytest.raises(InputError, match="a recipe is damaged"):
        made_with(tmp_path)
    assert made_with(tmp_path / "nothing") is None


def test_what_has_no_partner_is_counted(source: Path, tmp_path: Path):
    (source / "masks" / "a.png").rename(source / "masks" / "a_mask.png")
    command = ["build", str(source), str(tmp_path / "dest"), *FILTERS, "--canvas", "256"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert f"2 files have no partner of the same name and will not be built, such as {source}" in (
        answer.stdout
    )
    assert "3 built" in answer.stdout


def test_a_name_that_is_not_utf_8_costs_only_its_pair(source: Path, tmp_path: Path):
    for kind in ("images", "masks"):
        (source / kind / "d.png").rename(source / kind / os.fsdecode(b"caf\xe9.png"))
    command = ["build", str(source), str(tmp_path / "dest"), *FILTERS, "--canvas", "256"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 1, answer.output
    assert "3 built, 0 up to date, 1 rejected" in answer.stdout
    assert r"rejected: caf\udce9: a file name that is not UTF-8" in answer.stderr
    with Manifest.open(tmp_path / "dest") as manifest:
        assert manifest.latest()[r"caf\udce9"].status == "rejected"


def test_folders_whose_names_are_not_utf_8(source: Path, tmp_path: Path):
    odd = source.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    save(odd / "images" / "a.png", random_picture((40, 60)))  # grey, which is noted with its path
    save(odd / "images" / "d.png", random_picture((41, 60, 3)))  # rejected, likewise
    summary = build(find_pairs(odd), tmp_path / os.fsdecode(b"d\xe9st"), load())
    assert (summary.built, summary.rejected) == (3, ("d",))


def test_a_damaged_image_does_not_stop_the_card(source: Path, tmp_path: Path):
    build(find_pairs(source), tmp_path, load())
    whole = (tmp_path / card.SHEET).read_bytes()
    (tmp_path / "images" / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (tmp_path / "masks" / "a.png").write_bytes((tmp_path / "masks" / "a.png").read_bytes()[:60])
    with Manifest.open(tmp_path) as manifest:
        card.write(tmp_path, manifest)
    assert (tmp_path / card.SHEET).read_bytes() != whole


def test_the_cards_example_runs(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build(find_pairs(source), tmp_path, load())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Image.Image] = {}
    text = (tmp_path / card.CARD).read_text()
    exec(text.split("```python")[1].split("```")[0], names)
    assert names["image"].size == names["mask"].size == (256, 256)
    assert text.startswith("---\nlicense: other\n")
    assert "- n<1K\n---\n\n# " in text


def odd_pairs(folder: Path) -> set[str]:
    """Pairs that are bad in every way the README names; returns the stems to be rejected."""
    for stem in ("bomb", "cut", "grey", "large", "palette", "red", "size", "turned", "good one é"):
        write_pair(folder, stem)
    pictures, masks = folder / "images", folder / "masks"
    cut = (pictures / "cut.png").read_bytes()
    (pictures / "cut.png").write_bytes(cut[: len(cut) // 2])
    (pictures / "bomb.png").write_bytes(bomb(60_000))
    save(pictures / "grey.png", random_picture((40, 60)).astype(np.uint16) * 257)
    Image.fromarray(random_picture((40, 60, 3))).quantize(16).save(pictures / "palette.png")
    save(pictures / "large.png", random_picture((65, 60, 3)))
    save(masks / "large.png", random_picture((65, 60)))
    save(masks / "red.png", random_picture((40, 60, 3)))
    save(masks / "size.png", random_picture((41, 60)))
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 3
    with Image.open(pictures / "turned.png") as picture:
        picture.copy().save(pictures / "turned.png", exif=exif)
    return {"bomb", "cut", "large", "red", "size"}


def test_bad_input_never_costs_good_input(tmp_path: Path):
    bad = odd_pairs(tmp_path / "source")
    dest = tmp_path / "dest"
    command = ["build", str(tmp_path / "source"), str(dest), "--recipe", "preview"]
    answer = CliRunner().invoke(app, [*command, "--canvas", "256"])
    assert answer.exit_code == 1
    lines = answer.stderr.splitlines()
    for stem in bad:
        assert sum("rejected" in line and f"{stem}.png" in line for line in lines) == 1, stem
    for stem in ("grey", "palette", "turned"):
        assert sum("converted" in line and f"{stem}.png" in line for line in lines) == 1, stem
    with Manifest.open(dest) as manifest:
        records = manifest.latest()
    assert {stem for stem, record in records.items() if record.status == "rejected"} == bad
    assert {path.stem for path in (dest / "images").iterdir()} == records.keys() - bad
    card = (dest / "README.md").read_text()
    assert "4 pairs built, 5 rejected" in card
    assert all(f"- `{stem}`: " in card for stem in bad)


def test_two_runs_on_one_folder(source: Path, tmp_path: Path):
    (tmp_path / "dest").mkdir()
    with FileLock(tmp_path / "dest" / ".lock"), pytest.raises(OutputError, match="another run"):
        build(find_pairs(source), tmp_path / "dest", load())


def test_a_full_disk_stops_with_one_line_and_the_next_run_goes_on(
    source: Path, tmp_path: Path, monkeypatch, capsys
):
    dest, whole, written = tmp_path / "dest", tmp_path / "whole", []

    def fill(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(addresses.os, "fsync", fill)
        patch.setattr(sys, "argv", ["hqsod", "build", str(source), str(dest), "--canvas", "256"])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert "No space left on device" in error[0]
    assert not list(dest.rglob("*.part"))
    arguments = ["build", str(source), "--canvas", "256"]
    for folder in (dest, whole):
        assert CliRunner().invoke(app, [*arguments[:2], str(folder), *arguments[2:]]).exit_code == 0
    assert digests(dest) == digests(whole)


def test_a_folder_that_cannot_be_written_to_is_named(source: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        build(find_pairs(source), tmp_path / "file" / "dest", load())


def test_a_flagged_mask_gives_way_where_asked(source: Path, tmp_path: Path):
    engine = load()

    class Wrong:
        """A refiner that answers with noise."""

        name, weights = "wrong", ""

        def __call__(self, image: Array, mask: Array) -> Array:
            return random_picture(mask.shape)

    for fallback in (False, True):
        dest = tmp_path / str(fallback)
        settings = replace(engine.settings, fallback=fallback)
        summary = build(find_pairs(source), dest, LocalEngine(engine.upscaler, Wrong(), settings))
        assert set(summary.flagged) == {pair.stem for pair in find_pairs(source)}
        made = digests(dest)
        assert (made["masks/a.png"] == made["hq-masks/a.png"]) is fallback


@pytest.mark.parametrize("layer", FOLDERS)
def test_a_strangers_data_set_cannot_have_a_build_write_elsewhere(
    source: Path, tmp_path: Path, layer: str
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / layer).symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=f"{layer}: a link to"):
        build(find_pairs(source), tmp_path / "built", load())
    assert not list((tmp_path / "mine").iterdir())


def test_resuming_multiplies_the_same_batches(source: Path, tmp_path: Path):
    """A batch that is half done goes whole through the upscaler, and only the rest is written."""
    seen: list[int] = []
    engine = load(refiner="none")

    class Counting:
        name, weights, scale = "counting", "", 4

        def __call__(self, pictures: Sequence[Array]) -> list[Array]:
            seen.append(len(pictures))
            return engine.upscaler(pictures)

    counting = LocalEngine(Counting(), None, replace(engine.settings, batch=2))
    build(find_pairs(source), tmp_path / "dest", counting)
    assert seen == [2, 2]
    kept = (tmp_path / "dest" / "images" / "d.png").stat().st_mtime_ns
    (tmp_path / "dest" / "images" / "a.png").unlink()
    build(find_pairs(source), tmp_path / "dest", counting)
    assert seen == [2, 2, 2]
    assert (tmp_path / "dest" / "images" / "d.png").stat().st_mtime_ns == kept


def test_memory_is_bounded_by_what_is_under_way(tmp_path: Path, monkeypatch):
    """However many pairs there are, only those being read and written are held."""
    for number in range(40):
        write_pair(tmp_path, f"{number:02}", width=20)
    held, most = set(), 0
    read, build_pair = engines.read, engines.build_pair

    def count_read(pair, *rest):
        nonlocal most
        held.add(pair.stem)
        most = max(most, len(held))
        return read(pair, *rest)

    def count_built(task, *rest):
        held.discard(task.pair.stem)
        return build_pair(task, *rest)

    monkeypatch.setattr(engines, "read", count_read)
    monkeypatch.setattr(engines, "build_pair", count_built)
    build(find_pairs(tmp_path), tmp_path / "dest", load(refiner="none"))
    assert most <= runner.AHEAD + 1 + runner.BEHIND + 1


def test_the_recipe_follows_the_weights_at_hand(monkeypatch):
    monkeypatch.setattr("hqsod.weights.at_hand", lambda name: True)
    assert choose_recipe(None).name == "duts-hq"
    monkeypatch.setattr("hqsod.weights.at_hand", lambda name: name != "cascadepsp")
    assert choose_recipe(None).name == "preview"
    assert choose_recipe("duts-hq").changed("bicubic", None).name == "custom"
    with pytest.raises(SettingsError, match="duts-hq or preview"):
        choose_recipe("best")


def run_and_kill(command: list[str], dest: Path, files: int) -> None:
    """Start the command and kill it once `files` pictures are there."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(dest.glob("*/[!.]*.png"))) >= files:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(60) == -signal.SIGKILL, "the run was over before it could be killed"


@pytest.mark.slow
def test_a_killed_build_goes_on_and_ends_identical(photographs: Path, tmp_path: Path):
    """Forty real pairs, killed half-way with SIGKILL three times."""
    train = photographs / "train"
    for mask in sorted((train / "masks").iterdir())[::108][:40]:
        for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
            link = tmp_path / "source" / kind / (mask.stem + suffix)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(train / kind / link.name)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-m", "hqsod", "build", str(tmp_path / "source")]
    settings = ["--recipe", "preview", *FILTERS, "--precision", "float32"]
    for files in (20, 50, 80):
        run_and_kill([*command, str(killed), *settings], killed, files)
        with Manifest.open(killed) as manifest:
            recorded = [r for r in manifest.latest().values() if r.status == "built"]
        for record in recorded:
            for file in record.outputs.values():
                assert (killed / file.path).stat().st_size == file.size
    for folder in (killed, whole):
        subprocess.run([*command, str(folder), *settings], check=True, capture_output=True)
    assert len(digests(whole)) == 120
    assert digests(killed) == digests(whole)
    assert not list(killed.rglob("*.part"))


def test_the_manifest_reads_without_hqsod(source: Path, tmp_path: Path):
    """What the card promises: plain SQL gives sources, placement and figures."""
    import sqlite3

    build(find_pairs(source), tmp_path / "dest", load())
    rows = sqlite3.connect(tmp_path / "dest" / NAME).execute(
        "SELECT stem, json_extract(placement, '$.top'), json_extract(quality, '$.iou') FROM latest"
    )
    assert all(top > 0 and 0 <= iou <= 1 for _, top, iou in rows)


def test_upscale_and_refine_run_alone(source: Path, tmp_path: Path):
    save(source / "images" / "not.png", random_picture((4, 4, 3))).write_bytes(b"broken")
    out = tmp_path / "out"
    command = ["upscale", str(source / "images"), "--out", str(out), "--upscaler", "bicubic"]
    answer = CliRunner().invoke(app, command)
    assert (answer.exit_code, "4 made, 0 kept as they were, 1 failed" in answer.stdout) == (1, True)
    assert images.read_size(out / "a.png") == tuple(
        4 * s for s in images.read_size(source / "images" / "a.png")
    )
    masks = ["refine", str(source / "images"), str(source / "masks"), "--out", str(tmp_path / "m")]
    answer = CliRunner().invoke(app, [*masks, "--refiner", "guided"])
    assert answer.exit_code == 0, answer.output
    assert images.read_size(tmp_path / "m" / "a.png") == images.read_size(
        source / "masks" / "a.png"
    )
    kept = {file.name: file.read_bytes() for file in (source / "images").iterdir()}
    over = ["refine", str(source / "images"), str(source / "masks"), "--refiner", "guided"]
    answer = CliRunner().invoke(app, [*over, "--overwrite", "--out", str(source / "images")])
    assert isinstance(answer.exception, OutputError)  # the photographs are read as well
    assert kept == {file.name: file.read_bytes() for file in (source / "images").iterdir()}
    assert "0 made, 4 kept" in CliRunner().invoke(app, [*masks, "--refiner", "guided"]).stdout


@pytest.mark.parametrize("refiner", ["guided", "untrained"])
def test_what_refining_changed_is_said(source: Path, tmp_path: Path, refiner: str):
    """By the command and the card, and close by on the sheet; nothing at all is a warning."""
    path = tmp_path / "untrained.safetensors"
    save_weights(path, ContourRefiner((8, 12)).state_dict(), {})
    command = ["build", str(source), str(tmp_path / "dest"), "--canvas", "256", *FILTERS]
    named = "guided" if refiner == "guided" else str(path)
    answer = CliRunner().invoke(app, [*command, "--refiner", named])
    assert answer.exit_code == 0, answer.output
    text = (tmp_path / "dest" / card.CARD).read_text("utf-8")
    told = "efining changed 4 of 4 masks" if refiner == "guided" else "efining changed none of 4"
    assert told in answer.output
    assert told in text
    assert f"({card.SHEET})" in text
    assert ("warning" in answer.output) is (refiner == "untrained")
    assert images.read_size(tmp_path / "dest" / card.SHEET)[1] == 6 * CELL
    if refiner == "untrained":
        made = digests(tmp_path / "dest")
        stems = [pair.stem for pair in find_pairs(source)]
        assert all(made[f"masks/{x}.png"] == made[f"hq-masks/{x}.png"] for x in stems)


def test_masks_are_judged_by_a_network_of_ones_own(source: Path, tmp_path: Path):
    torch.manual_seed(0)
    path = tmp_path / "purnet.safetensors"
    save_weights(path, build_purnet("light", 8, attention=()).state_dict(), {"size": "64"})
    build(find_pairs(source), tmp_path / "dest", load(predictor=str(path)))
    with Manifest.open(tmp_path / "dest") as manifest:
        records = manifest.latest().values()
    assert all(0 <= record.quality["prediction_iou"] < 0.9 for record in records)
    again = build(find_pairs(source), tmp_path / "dest", load(predictor=str(path)))
    assert again.kept == 4
    without = build(find_pairs(source), tmp_path / "dest", load(), replace=True)
    assert without.built == 4  # a mask judged otherwise is another result


def test_the_card_names_the_licences_and_papers_of_its_networks():
    recipe = {"recipe": "duts-hq", "upscaler": "swinir-l", "refiner": "cascadepsp"}
    text = card._card("name", [], [recipe])
    assert "swinir-l: Apache-2.0; cascadepsp: MIT." in text
    assert all(key in text for key in ("wang2017", "liang2021", "cheng2020"))
    own = card._card("name", [], [{**recipe, "upscaler": "mine.pth", "refiner": "none"}])
    assert "none that hqsod knows by name" in own


def test_pairs_that_left_the_source_are_told_and_may_lose_their_files(source: Path, tmp_path: Path):
    pairs, dest = find_pairs(source), tmp_path / "dest"
    assert build(pairs, dest, load()).left == ()
    for kind in FOLDERS:
        (dest / kind / f"{pairs[0].stem}.png").unlink()
    summary = build(pairs[1:], dest, load())
    assert (summary.built, summary.kept, summary.left) == (0, 3, (pairs[0].stem,))


def test_a_pair_that_the_refiner_refuses_costs_only_itself(source: Path, tmp_path: Path):
    class Picky(GuidedRefiner):
        def __call__(self, image: Array, mask: Array) -> Array:
            if not seen:
                seen.append(image)
                raise InputError("a picture too narrow")
            return super().__call__(image, mask)

    seen: list[Array] = []
    summary = build(find_pairs(source), tmp_path, replace(load(), refiner=Picky()))
    assert (summary.built, len(summary.rejected)) == (3, 1)


def kept(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".png", ".md")}


@pytest.mark.parametrize("own", ["README.md", "contact-sheet.jpg", "images/a.png", "hq-masks/x"])
def test_files_that_are_not_hqsods_are_never_replaced(source: Path, tmp_path: Path, own: str):
    file = tmp_path / "mine" / own
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(OutputError, match=f"holds {own} and no manifest"):
        build(find_pairs(source), tmp_path / "mine", load())
    assert file.read_text() == "mine"


def test_a_data_set_is_not_built_over_its_own_source(source: Path, tmp_path: Path):
    before = kept(source)
    with pytest.raises(OutputError, match="is read from and would be written to"):
        build(find_pairs(source), source, load())
    (tmp_path / "behind").symlink_to(source)
    with pytest.raises(OutputError, match="is read from and would be written to"):
        build(find_pairs(source), tmp_path / "behind", load())
    assert kept(source) == before


def test_a_pair_that_cannot_be_read_again_stays_as_it_was_built(source: Path, tmp_path: Path):
    pairs, dest = find_pairs(source), tmp_path / "dest"
    build(pairs, dest, load())
    whole, image = pairs[0].image.read_bytes(), pairs[0].image
    image.write_bytes(b"")
    assert build(pairs, dest, load()).rejected == (pairs[0].stem,)
    image.write_bytes(whole[:-40])  # found out only when its turn comes
    summary = build(pairs, dest, load())
    assert (summary.built, summary.rejected) == (0, (pairs[0].stem,))
    image.write_bytes(whole)
    assert build(pairs, dest, load()).kept == 4
    image.write_bytes(b"")
    assert build(pairs, dest, load(), replace=True).rejected == (pairs[0].stem,)
    with Manifest.open(dest) as manifest:
        assert manifest.latest()[pairs[0].stem].status == "built"


def test_a_canvas_that_some_images_do_not_fit_voids_none(source: Path, tmp_path: Path):
    pairs, dest = find_pairs(source), tmp_path / "dest"
    build(pairs, dest, load())
    for leave in (False, True):
        assert len(build(pairs, dest, load(canvas=64), replace=leave).rejected) == 4
    assert build(pairs, dest, load()).kept == 4


@pytest.mark.parametrize("canvas", ["8001", "63", "²", "x"])
def test_a_canvas_that_could_not_be_read_again_is_refused_at_once(
    source: Path, tmp_path: Path, canvas: str
):
    command = ["build", str(source), str(tmp_path / "dest"), *FILTERS, "--canvas", canvas]
    answer = CliRunner().invoke(app, command)
    assert isinstance(answer.exception, SettingsError)
    assert "a side from 64 to 8000 pixels, or none" in str(answer.exception)


@pytest.mark.parametrize("name", ["3.45\u202fPM", "a\u3000b"])
def test_a_name_with_odd_spaces_is_built_once(tmp_path: Path, name: str):
    write_pair(tmp_path / "source", name)
    pairs, dest = find_pairs(tmp_path / "source"), tmp_path / "dest"
    assert build(pairs, dest, load()).built == 1
    assert build(pairs, dest, load()).kept == 1


def test_what_would_be_too_large_to_read_again_is_not_built(tmp_path: Path):
    write_pair(tmp_path / "source", "small")
    save(tmp_path / "source/images/large.png", np.zeros((2001, 2000, 3), np.uint8))
    save(tmp_path / "source/masks/large.png", np.zeros((2001, 2000), np.uint8))
    pairs = find_pairs(tmp_path / "source")
    summary = build(pairs, tmp_path / "dest", load(canvas=None))
    assert (summary.built, summary.rejected) == (1, ("large",))

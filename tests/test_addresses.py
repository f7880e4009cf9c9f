"""Builds from and to a store: the bytes, the resume, and what becomes of the manifest."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from hqsod import addresses
from hqsod.building import home
from hqsod.building.pipeline import build
from hqsod.dataset.folders import LAYERS
from hqsod.dataset.layouts import find_pairs
from hqsod.dataset.manifest import NAME, Manifest
from hqsod.errors import InputError, OutputError, SettingsError
from tests.test_building import digests, load


@pytest.fixture
def store() -> Iterator[Path]:
    """An empty store in this process's memory."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("upath")
    yield addresses.folder("memory://store")
    fsspec.filesystem("memory").store.clear()


def copy(source: Path, dest: Path) -> None:
    """Copy all files below one folder to another, either at an address or not."""
    for file in source.rglob("*"):
        if file.is_file():
            target = dest / str(file.relative_to(source))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())


def test_the_same_from_and_to_a_store(source: Path, store: Path, tmp_path: Path):
    copy(source, store / "source")
    (store / "source" / "images" / "d.png").write_bytes(b"broken")
    pairs = find_pairs(store / "source")
    summary = build(pairs, store / "built", load())
    assert (summary.built, summary.rejected) == (3, ("d",))
    assert "\n# built\n" in summary.card.read_text()
    (source / "images" / "d.png").unlink()
    build(find_pairs(source), tmp_path / "local", load())
    copy(store / "built", tmp_path / "fetched")
    assert digests(tmp_path / "fetched") == digests(tmp_path / "local")
    with Manifest.open(tmp_path / "fetched") as manifest:
        assert manifest.latest()["a"].sources["image"].path == str(pairs[0].image)
    (store / "built" / "masks" / "a.png").unlink()
    summary = build(pairs, store / "built", load())
    assert (summary.built, summary.kept) == (1, 2)
    build(pairs, store / "built", load(refiner="none"), replace=True)
    held = [len(addresses.sizes(store / "built" / layer)) for layer in LAYERS]
    assert held == [3, 3, 0]


def test_a_kill_costs_what_was_not_put_back(
    source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    """Here a kill is a store that refuses the manifest from the second record on."""
    monkeypatch.setattr(home, "SECONDS", 0.0)
    monkeypatch.setattr(home, "LARGEST_SHARE", 1e9)
    put, times = addresses.write_bytes, []

    def refuse(path: Path, data: bytes) -> None:
        if path.name == NAME:
            times.append(path)
            if len(times) > 2:  # the first is before any record
                raise OutputError("killed")
        put(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(addresses, "write_bytes", refuse)
        with pytest.raises(OutputError, match="killed"):
            build(find_pairs(source), store / "built", load())
    assert len(list((store / "built" / "masks").iterdir())) > 1
    summary = build(find_pairs(source), store / "built", load())
    assert (summary.built, summary.kept) == (3, 1)


def test_a_run_that_stops_puts_its_records_back(source: Path, store: Path):
    engine = load()

    class Stopping:
        settings = engine.settings

        def run(self, batches, folder):
            yield next(engine.run(batches, folder))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(find_pairs(source), store / "built", Stopping())
    assert build(find_pairs(source), store / "built", load()).kept == 1


def test_a_grown_manifest_is_put_back_more_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 40.0, 60.0, 259.0, 260.0])
    monkeypatch.setattr(home, "monotonic", lambda: next(clock))
    monkeypatch.setattr(addresses, "is_remote", lambda path: True)
    put: list[Path] = []
    monkeypatch.setattr(addresses, "write_bytes", lambda path, data: put.append(path))
    (tmp_path / NAME).write_bytes(b"")
    here = home.Home(tmp_path, tmp_path)  # begun at 0
    here.save_now()  # from 40 to 60: not again for 200
    here.save()  # at 259
    assert len(put) == 1
    monkeypatch.setattr(home, "monotonic", lambda: 261.0)
    here.save()
    assert len(put) == 2


def test_a_store_needs_no_lock_and_a_folder_has_one(tmp_path: Path):
    with home.open_home(tmp_path) as here:
        assert here.folder == tmp_path
        with pytest.raises(OutputError, match="another run"), home.open_home(tmp_path):
            pass
    with FileLock(tmp_path / ".lock", timeout=0):
        pass


def test_addresses_are_told_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert addresses.folder("a/b") == Path("a/b")
    assert addresses.folder(f"file://{tmp_path}") == tmp_path
    with pytest.raises(InputError, match=r"nothing://here: .*expected an address"):
        addresses.folder("nothing://here")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(SettingsError, match="hqsod\\[s3\\]"):
        addresses.folder("s3://bucket/set")


def test_a_file_that_is_not_there(store: Path):
    with pytest.raises(InputError, match="memory://store/x"):
        addresses.read_bytes(store / "x")
    assert addresses.sizes(store / "none") == {}


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path):
    (tmp_path / "secret").write_bytes(b"mine")
    for name in ("link", ".link.part"):  # a name that could be guessed
        (tmp_path / name).symlink_to("secret")
    addresses.write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "secret").read_bytes() == b"mine"
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "link").is_symlink()


def test_names_as_long_as_a_disk_takes_are_written_and_longer_ones_cost_their_file(tmp_path: Path):
    addresses.write_bytes(tmp_path / ("x" * 251 + ".png"), b"")
    with pytest.raises(InputError, match="File name too long"):
        addresses.write_bytes(tmp_path / ("x" * 252 + ".png"), b"")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_read_whole_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(2**40)
    for name, reason in (("pipe", "not a file"), ("holes", "bytes; expected at most 512,000,000")):
        with pytest.raises(InputError, match=reason):
            addresses.read_bytes(tmp_path / name)


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path: Path):
    abandoned, fresh = (tmp_path / f".{letter * 16}.part" for letter in "ab")
    others = [tmp_path / ".x.png.part", tmp_path / "a.part", fresh]
    for path in (abandoned, *others):
        path.touch()
    os.utime(abandoned, (0, 0))
    addresses.write_bytes(tmp_path / "x.png", b"")
    assert {*tmp_path.iterdir()} == {*others, tmp_path / "x.png"}
    (folder := tmp_path / f".{'c' * 16}.part").mkdir()
    addresses.sweep(tmp_path, age=0)
    assert folder.is_dir()
    assert not fresh.exists()


def test_a_file_that_goes_while_a_folder_is_listed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a.png").write_bytes(b"abc")
    listed = [tmp_path / "gone.part", tmp_path / "a.png"]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert addresses.sizes(tmp_path) == {"a.png": 3}

"""The store of training pictures: made once, split by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from hqsod import images
from hqsod.canvas import Placement, pad
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.errors import InputError, OutputError
from hqsod.pairs import Pair
from hqsod.training.examples import Example, find_training_set, read_example
from hqsod.training.store import open_store
from tests.conftest import save, write_pair
from tests.training_job import noise_store


def test_a_store_is_made_once_and_leaves_bad_pictures_out(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "images" / "a.png").write_bytes(b"no picture")
    store = open_store(find_training_set(source, None, None), 48, 20)
    assert store.stems == ("b c", "d", "é日")
    assert list(store.rejected) == ["a"]
    assert store[0].image.shape == (48, 48, 3)
    called = []

    def counted(pair: Pair, *arguments: object) -> Example:
        called.append(pair.stem)
        return read_example(pair, *arguments)

    monkeypatch.setattr("hqsod.training.store.read_example", counted)
    again = open_store(find_training_set(source, None, None), 48, 20)
    assert called == ["a"]  # which may have been mended
    assert again.stems == store.stems
    assert again.rejected == store.rejected
    assert all((x == y).all() for x, y in zip(again[2], store[2], strict=True))


def test_a_store_that_several_ask_for_at_once_is_made_once(source: Path, cache: Path) -> None:
    """Each in a process of its own, as trainings are; a made picture takes long enough to meet."""
    lines = f"""
import sys, time
from pathlib import Path
from hqsod.training import store
from hqsod import images
from hqsod.pairs import Pair
from hqsod.training.examples import Example, find_training_set, read_example
read = store.read_example
def slowly(*arguments):
    print("made")
    time.sleep(0.3)
    return read(*arguments)
store.read_example = slowly
opened = store.open_store(find_training_set(Path({str(source)!r}), None, None), 48, 20)
print(*(int(picture.sum()) for picture in opened.arrays["image"]))
"""
    asking = [
        subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [process.communicate()[0] for process in asking]
    assert all(process.returncode == 0 for process in asking)
    assert sum(text.count("made") for text in told) == 4
    assert len({text.splitlines()[-1] for text in told}) == 1


def test_a_store_without_a_readable_picture_is_refused(source: Path, cache: Path) -> None:
    for image in (source / "images").iterdir():
        image.write_bytes(b"no picture")
    with pytest.raises(InputError, match="none readable"):
        open_store(find_training_set(source, None, None), 48, 20)


@pytest.mark.parametrize("name", ["image.npy", "states.npy"])
def test_a_damaged_store_is_told_in_a_line(source: Path, cache: Path, name: str) -> None:
    found = find_training_set(source, None, None)
    open_store(found, 48)
    (file,) = (cache / "training").glob(f"*/{name}")
    file.write_bytes(bytes(50))
    with pytest.raises(OutputError, match=f"{name}: damaged; delete the folder"):
        open_store(found, 48)


def test_a_full_disk_is_told_before_it_is_met(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="HQSOD_CACHE"):
        open_store(find_training_set(source, None, None), 48, 20)


def test_published_superpixels_are_read(tmp_path: Path, cache: Path) -> None:
    from scipy.io import savemat

    write_pair(tmp_path, "a", width=60)
    (tmp_path / "images").rename(tmp_path / "image")
    (tmp_path / "masks").rename(tmp_path / "groundtruth")
    (tmp_path / "image_sp").mkdir()
    labels = np.zeros(np.asarray(Image.open(tmp_path / "image" / "a.png")).shape[:2])
    labels[:, 30:] = 7
    savemat(tmp_path / "image_sp" / "a.mat", {"sp": labels})
    superpixels = open_store(find_training_set(tmp_path, None, None), 32, 20)[0].superpixels
    assert (superpixels[:, :16] == 0).all()
    assert (superpixels[:, 16:] == 1).all()


def test_the_border_of_a_built_data_set_is_cropped_away(tmp_path: Path, cache: Path) -> None:
    placement = Placement.centred((20, 40), (40, 40))
    for kind, value in (("images", 200), ("masks", 0), ("hq-masks", 255)):
        shape = (20, 40, 3) if kind == "images" else (20, 40)
        save(tmp_path / kind / "a.png", pad(np.full(shape, value, np.uint8), placement))
    with Manifest.open(tmp_path, create=True) as manifest:
        manifest.add_recipe("key", {})
        outputs = {layer: File(f"{layer}/a.png", "", 1) for layer in ("images", "masks")}
        sources = {kind: File("", "", 1) for kind in ("image", "mask")}
        manifest.append(Record("a", "built", "key", sources, placement, outputs))
    for masks, value in (("masks", 0), ("hq-masks", 255)):
        example = open_store(find_training_set(tmp_path, None, masks), 32, 20)[0]
        assert (example.image == 200).all()
        assert (example.mask == value).all()
    (tmp_path / "outer").mkdir()
    for part in ("images", "masks", "hq-masks", "manifest.sqlite"):
        (tmp_path / part).rename(tmp_path / "outer" / part)
    assert find_training_set(tmp_path).placements, "of a folder that holds this data set alone"


def test_a_split_depends_on_names_alone() -> None:
    store = noise_store(200)
    training, held = store.split(0.2)
    assert 20 < len(held) < 60
    assert not set(training.stems) & set(held.stems)
    assert set(store.part(range(100)).split(0.2)[1].stems) <= set(held.stems)


def test_superpixels_that_a_data_set_brings_are_seen_when_they_come_and_change(
    source: Path, cache: Path
) -> None:
    def labels(stem: str) -> int:
        store = open_store(find_training_set(source, None, None), 48, 20)
        return int(store[store.stems.index(stem)].superpixels.max()) + 1

    before = labels("d")
    height, width = images.read_mask(source / "masks" / "d.png").shape
    file = source / "image_sp" / "d.mat"
    file.parent.mkdir()
    halves = np.repeat([1, 2], [height // 2, height - height // 2])[:, None].repeat(width, 1)
    savemat(file, {"sp": halves})
    assert (before > 2, labels("d")) == (True, 2)
    file.write_bytes(b"damaged")
    assert "d" in open_store(find_training_set(source, None, None), 48, 20).rejected
    savemat(file, {"sp": np.ones((height, width))})
    assert labels("d") == 1

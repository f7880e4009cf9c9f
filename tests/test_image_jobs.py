"""Going through a list of pictures: nothing lost, nothing made twice, nothing bad in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hqsod.encoding import write_png
from hqsod.errors import InputError, OutputError
from hqsod.image_jobs import Outcome, Work, find_inputs, make_each
from hqsod.images import Array, read_map
from tests.conftest import random_picture, save


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return [save(tmp_path / "in" / f"{i}.png", np.full((4, 5), i, np.uint8)) for i in range(7)]


def by_stem(pictures: list[Path]) -> dict[Path, str]:
    return {path: path.stem for path in pictures}


class Doubling:
    """Work that doubles grey levels and remembers its batches."""

    def __init__(self, out: Path, batch: int = 1) -> None:
        self.batches: list[list[int]] = []
        self.out = out
        self.work = Work("doubling", read_map, self.make, {out: lambda _, made: made}, batch)

    def make(self, items: Sequence[Array]) -> list[Array]:
        self.batches.append([int(item[0, 0]) for item in items])
        if 5 in self.batches[-1]:
            raise InputError("five")
        return [item * 2 for item in items]

    def made(self) -> dict[str, int]:
        return {path.stem: int(read_map(path)[0, 0]) for path in self.out.iterdir()}


def test_every_picture_becomes_a_file(pictures: list[Path], tmp_path: Path):
    doubling = Doubling(tmp_path / "out", batch=3)
    outcome = make_each(by_stem(pictures[:5]), doubling.work)
    assert outcome == Outcome(5, 0, ())
    assert doubling.batches == [[0, 1, 2], [3, 4]]
    assert doubling.made() == {str(i): 2 * i for i in range(5)}


def test_what_is_there_is_kept_and_batches_stay_the_same(pictures: list[Path], tmp_path: Path):
    doubling = Doubling(tmp_path / "out", batch=2)
    for stem in ("0", "1", "2"):
        write_png(tmp_path / "out" / f"{stem}.png", np.full((4, 5), 99, np.uint8))
    assert make_each(by_stem(pictures[:5]), doubling.work) == Outcome(2, 3, ())
    assert doubling.batches == [[2, 3], [4]]
    assert doubling.made() == {"0": 99, "1": 99, "2": 99, "3": 6, "4": 8}
    assert make_each(by_stem(pictures[:5]), doubling.work, overwrite=True) == Outcome(5, 0, ())
    assert doubling.made() == {str(i): 2 * i for i in range(5)}


def test_bad_pictures_cost_no_good_ones(pictures: list[Path], tmp_path: Path):
    pictures[1].write_bytes(b"not a picture")
    pictures.insert(3, tmp_path / "missing.png")
    doubling = Doubling(tmp_path / "out", batch=2)
    outcome = make_each(by_stem(pictures), doubling.work)
    assert [path.stem for path in outcome.failed] == ["1", "missing", "5", "6"]
    assert doubling.batches == [[0], [2], [3, 4], [5, 6]]
    assert doubling.made() == {"0": 0, "2": 4, "3": 6, "4": 8}
    assert str(outcome) == "4 made, 0 kept as they were, 4 failed"


def test_several_results_each_and_only_the_missing_are_drawn(pictures: list[Path], tmp_path: Path):
    drawn = []

    def draw(item: Array, made: Array) -> Array:
        drawn.append(int(item[0, 0]))
        return made + 1

    folders = {tmp_path / "a": lambda _, made: made, tmp_path / "a" / "b": draw}
    work = Work("copying", read_map, list, folders)
    write_png(tmp_path / "a" / "b" / "1.png", np.zeros((4, 5), np.uint8))
    assert make_each(by_stem(pictures[:3]), work) == Outcome(3, 0, ())
    assert sorted(drawn) == [0, 2]
    assert int(read_map(tmp_path / "a" / "b" / "2.png")[0, 0]) == 3


def test_a_picture_is_never_replaced(pictures: list[Path], tmp_path: Path):
    before = pictures[2].read_bytes()
    with pytest.raises(OutputError, match=r"2\.png is one of the images"):
        make_each(by_stem(pictures[2:]), Doubling(tmp_path / "in").work, overwrite=True)
    assert pictures[2].read_bytes() == before


def test_a_folder_that_cannot_be_written_ends_the_job(pictures: list[Path], tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        make_each(by_stem(pictures), Doubling(tmp_path / "file").work)


def test_pictures_are_found_behind_files_folders_and_patterns(tmp_path: Path):
    for name in ("a/x.png", "a/y.jpg", "b/z.png", "b/x.png"):
        save(tmp_path / name, random_picture((3, 3, 3)))
    inputs = (tmp_path / "a", tmp_path / "?" / "z*", tmp_path / "no.png")
    found = find_inputs([str(path) for path in inputs])
    assert [path.name for path in found] == ["x.png", "y.jpg", "z.png", "no.png"]
    with pytest.raises(InputError, match=r"both become x\.png"):
        find_inputs([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(InputError, match="no images"):
        find_inputs([str(tmp_path / "*.gif")])


def test_patterns_go_into_folders_but_not_in_circles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    grey = np.zeros((2, 2), np.uint8)
    wanted = [save(tmp_path / name, grey) for name in ("a.png", "b/c.png", "b/d/e.png")]
    for hidden in (".f.png", "b/.g/h.png"):
        save(tmp_path / hidden, grey)
    for link in ("circle", "b/again", "b/d/back"):
        (tmp_path / link).symlink_to(tmp_path)
    assert list(find_inputs([f"{tmp_path}/**/*.png"])) == wanted
    monkeypatch.chdir(tmp_path)
    assert list(find_inputs(["**/*.png"])) == [path.relative_to(tmp_path) for path in wanted]
    assert list(find_inputs(["b/.g/*"])) == [Path("b/.g/h.png")]
    with pytest.raises(InputError, match="between slashes"):
        find_inputs(["**.png"])


def test_a_pattern_does_not_find_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    grey = np.zeros((2, 2), np.uint8)
    for name in ("a.png", "b/c.png", "r/out/d.png", "r/out/cutouts/e.png"):
        save(tmp_path / name, grey)
    wanted = [tmp_path / "a.png", tmp_path / "b/c.png"]
    assert list(find_inputs([f"{tmp_path}/**/*.png"], apart=tmp_path / "r/out")) == wanted
    monkeypatch.chdir(tmp_path)
    assert len(find_inputs(["**/*.png"], apart=Path("r/out"))) == 2
    assert len(find_inputs(["b/*.png"], apart=Path("b"))) == 1, "named, not found"


def test_files_and_folders_in_the_place_of_the_other_are_told(pictures: list[Path], tmp_path: Path):
    with pytest.raises(OutputError, match=r"0\.png is a file, not a folder"):
        find_inputs([str(pictures[1])], apart=pictures[0])
    (tmp_path / "out" / "3.png").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"3\.png is a folder"):
        make_each(by_stem(pictures[:5]), Doubling(tmp_path / "out").work)
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_link_to_itself_fails_alone(tmp_path: Path):
    save(tmp_path / "good.png", random_picture((4, 5)))
    (tmp_path / "loop.png").symlink_to("loop.png")
    found = find_inputs([str(tmp_path / "loop.png"), str(tmp_path / "good.png")])
    outcome = make_each(found, Doubling(tmp_path / "out").work)
    assert (outcome.made, [path.name for path in outcome.failed]) == (1, ["loop.png"])


def test_names_that_collide_are_told_with_what_can_be_done(tmp_path: Path):
    for name in ("in/a.jpg", "in/a.png", "other/a.png"):
        save(tmp_path / name, random_picture((4, 5)))
    with pytest.raises(InputError, match="rename one"):
        find_inputs([str(tmp_path / "in")])
    with pytest.raises(InputError, match="once for each folder"):
        find_inputs([str(tmp_path / "in" / "a.png"), str(tmp_path / "other")])


def test_what_is_no_image_is_said(tmp_path: Path, capsys):
    save(tmp_path / "a.png", random_picture((4, 5)))
    for name in ("b.tga", "c\x1b[2J.txt", ".hidden"):
        (tmp_path / name).touch()
    assert len(find_inputs([str(tmp_path)])) == 1
    assert "left out, not images: 2, such as b.tga" in capsys.readouterr().err


def test_folders_in_folders_are_mirrored(tmp_path: Path):
    source, out = tmp_path / "in", tmp_path / "in" / "out"
    grey = np.full((4, 5), 9, np.uint8)
    for name in ("a.png", "b/a.png", "b/c.d/e.f.png", ".hidden/a.png"):
        save(source / name, grey)
    (source / "b" / "circle").symlink_to(source)
    for turn in range(2):  # what the first turn made is no input of the second
        found = find_inputs([str(source)], recursive=True, apart=out)
        assert list(found.values()) == ["a", "b/a", "b/c.d/e.f"]
        outcome = make_each(found, Doubling(out).work)
        assert outcome == (Outcome(3, 0, ()) if turn == 0 else Outcome(0, 3, ()))
    made = {str(path.relative_to(out)) for path in out.rglob("*.png")}
    assert made == {"a.png", "b/a.png", "b/c.d/e.f.png"}
    assert list(find_inputs([str(source)]).values()) == ["a"]


def test_results_that_would_replace_each_other_are_refused(tmp_path: Path):
    out = tmp_path / "out"
    for name in ("a.png", "cutouts/a.png"):
        save(tmp_path / "in" / name, np.zeros((4, 5), np.uint8))
    drawn = dict.fromkeys([out, out / "cutouts"], lambda _, made: made)
    work = Work("copying", read_map, list, drawn)
    found = find_inputs([str(tmp_path / "in")], recursive=True)
    with pytest.raises(InputError, match=r"would both become .*out/cutouts/a\.png"):
        make_each(found, work)
    assert not out.exists()


def test_results_among_the_images_are_refused_at_once(pictures: list[Path], tmp_path: Path):
    folder = pictures[0].parent
    with pytest.raises(OutputError, match="is where the images are"):
        find_inputs([str(folder)], apart=folder)


def test_odd_names_cost_only_themselves(pictures: list[Path], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("~nobody-by-this-name.png"), np.zeros((8, 9), np.uint8))
    found = find_inputs(["~nobody-by-this-name.png", "x" * 300 + ".png"])
    long = save(tmp_path / f"{'y' * 251}.png", np.zeros((8, 9), np.uint8))
    out = tmp_path / "out"
    work = replace(Doubling(out).work, formats={out: "webp"})
    for _ in range(2):  # again, when it is asked what is there
        outcome = make_each(found | {long: long.stem}, work)
        assert len(outcome.failed) == 2
    assert outcome.kept == 1

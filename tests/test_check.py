"""`hqsod check` finds each kind of trouble, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hqsod.check import check
from hqsod.cli import app
from hqsod.dataset.known_faults import read_known_faults
from hqsod.dataset.layouts import inspect
from hqsod.errors import InputError
from tests.conftest import random_picture, save, write_pair


def test_a_good_data_set_has_no_problems(source: Path):
    (source / "images" / "d.png").unlink()
    (source / "masks" / "d.png").unlink()
    (source / "images" / "é日.png").unlink()
    (source / "masks" / "é日.png").unlink()
    report = check(inspect(source))
    assert (report.pairs, report.problems, report.notes) == (2, (), ())


def damage(folder: Path) -> None:
    """One of each."""
    for stem in ("cut", "empty", "full", "good", "large", "soft", "torn", "twin"):
        write_pair(folder, stem)
        save(folder / "images" / f"{stem}.png", random_picture((40, 60, 3), sum(stem.encode())))
    write_pair(folder, "odd")
    save(folder / "images" / "odd.png", random_picture((40, 60)))
    save(folder / "images" / "twin.png", random_picture((40, 60, 3), sum(b"good")))
    masks = folder / "masks"
    save(masks / "empty.png", np.zeros((40, 60), np.uint8))
    save(masks / "full.png", np.full((40, 60), 255, np.uint8))
    save(masks / "soft.png", np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1)))
    save(masks / "large.png", random_picture((41, 60)) // 128 * 255)
    save(masks / "alone.png", random_picture((40, 60)))
    for name in ("cut", "torn"):
        path = folder / "images" / f"{name}.png"
        path.write_bytes(path.read_bytes()[: 3000 if name == "cut" else 3])


def test_each_kind_of_trouble_is_found(tmp_path: Path):
    damage(tmp_path)
    answer = CliRunner().invoke(app, ["check", str(tmp_path), "--json"])
    assert answer.exit_code == 1
    report = json.loads(answer.stdout)
    found = {problem["kind"]: Path(problem["file"]).stem for problem in report["problems"]}
    assert found == {
        "duplicate": "twin",
        "empty": "empty",
        "full": "full",
        "grey": "soft",
        "size": "large",
        "truncated": "cut",
        "unpaired": "alone",
        "unreadable": "torn",
    }
    assert [Path(note["file"]).stem for note in report["notes"]] == ["odd"]
    text = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert text.exit_code == 1
    assert "9 pairs (images and masks layout): 1 duplicate" in text.stdout


def test_a_data_set_without_a_pair_is_wrong(tmp_path: Path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    (problem,) = check(inspect(tmp_path)).problems
    assert problem.kind == "no pairs"


def reencoded(path: Path, name: str) -> None:
    """The image once more: half as large, and as a poor JPEG."""
    with Image.open(path) as image:
        image.reduce(2).save(path.with_name(name), quality=40)
    mask = path.parent.parent / "masks" / path.name
    with Image.open(mask) as image:
        image.reduce(2).save(mask.with_name(Path(name).with_suffix(".png").name))


def test_near_duplicates_and_images_of_another_set_are_found(tmp_path: Path):
    ours, theirs = tmp_path / "train", tmp_path / "test"
    for folder, stem, name in ((ours, "cat", "chelsea"), (theirs, "cup", "coffee")):
        write_pair(folder, stem, name, width=200)
    assert check(inspect(ours), inspect(theirs)).problems == ()
    reencoded(ours / "images" / "cat.png", "cat2.jpg")
    (theirs / "images" / "cat3.png").write_bytes((ours / "images" / "cat.png").read_bytes())
    (theirs / "masks" / "cat3.png").write_bytes((ours / "masks" / "cat.png").read_bytes())
    problems = check(inspect(ours), inspect(theirs)).problems
    assert [(problem.kind, Path(problem.file).name) for problem in problems] == [
        ("near-duplicate", "cat2.jpg"),
        ("shared", "cat.png"),
        ("shared", "cat2.jpg"),
    ]
    answer = CliRunner().invoke(app, ["check", str(ours), "--against", str(theirs)])
    assert answer.exit_code == 1
    assert "1 near-duplicate, 2 shared" in answer.stdout


def test_images_of_another_set_count_without_masks(tmp_path: Path):
    ours, theirs = tmp_path / "train", tmp_path / "test"
    write_pair(ours, "cat")
    write_pair(theirs, "other")
    (theirs / "masks" / "other.png").unlink()
    (shared,) = check(inspect(ours), inspect(theirs)).problems
    assert (shared.kind, Path(shared.file).name) == ("shared", "cat.png")


def test_one_image_with_two_masks_is_a_fault_of_its_own(tmp_path: Path):
    for stem, left in (("a", 0), ("b", 2), ("c", 20)):
        write_pair(tmp_path, stem)
        mask = np.zeros((40, 60), np.uint8)
        mask[:, left : left + 20] = 255
        save(tmp_path / "masks" / f"{stem}.png", mask)
    images = tmp_path / "images"
    for stem in ("b", "c"):
        (images / f"{stem}.png").write_bytes((images / "a.png").read_bytes())
    problems = check(inspect(tmp_path)).problems
    assert [(problem.kind, Path(problem.file).stem) for problem in problems] == [
        ("contradictory", "c"),
        ("duplicate", "b"),
    ]
    assert "the same image as a.png, but their masks overlap by 0%" in problems[0].detail


def known(folder: Path, *rows: str) -> Path:
    path = folder / "faults.csv"
    path.write_text("stem,fault,found\n" + "".join(f"{row}\n" for row in rows), "utf-8")
    return path


def test_known_faults_are_told_once_and_strangers_are_counted(tmp_path: Path):
    for stem in ("a", "b", "c"):
        write_pair(tmp_path, stem)
        save(tmp_path / "images" / f"{stem}.png", random_picture((40, 60, 3), ord(stem)))
    (tmp_path / "images" / "b.png").write_bytes((tmp_path / "images" / "a.png").read_bytes())
    path = known(tmp_path, "b,duplicate,by check", 'c,part missing,"seen, twice"', "x,grey,seen")
    arguments = ["check", str(tmp_path), "--known-faults", str(path)]
    answer = CliRunner().invoke(app, [*arguments, "--json"])
    report = json.loads(answer.stdout)
    assert [(p["kind"], Path(p["file"]).name) for p in report["problems"]] == [
        ("duplicate", "b.png"),
        ("part missing", "c.png"),
    ]
    assert report["problems"][1]["detail"] == "known; found by seen, twice"
    assert [note["file"] for note in report["notes"]] == ["1 of their pairs"]
    answer = CliRunner().invoke(app, arguments)
    assert "1 duplicate, 1 part missing" in answer.stdout
    assert answer.exit_code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"stem,fault\na,b\n", "no column found"),
        (b"", "no column"),
        (b"stem,fault,found\na,b\n", "row 1 is not whole"),
        (b"stem,fault,found\n\xff,b,c\n", "expected a CSV file in UTF-8"),
        (b'stem,fault,found\n"a,b,c\n', "expected a CSV file in UTF-8"),
    ],
)
def test_a_list_of_faults_that_is_none_is_refused(tmp_path: Path, text: bytes, said: str):
    (tmp_path / "faults.csv").write_bytes(text)
    with pytest.raises(InputError, match=said):
        read_known_faults(tmp_path / "faults.csv")


def test_images_of_one_level_are_alike_only_when_they_are_the_same(tmp_path: Path):
    for stem, level in (("a", 0), ("b", 9), ("c", 0)):
        write_pair(tmp_path, stem)
        save(tmp_path / "images" / f"{stem}.png", np.full((40, 60, 3), level, np.uint8))
    problems = check(inspect(tmp_path)).problems
    assert [(problem.kind, Path(problem.file).stem) for problem in problems] == [("duplicate", "c")]


def test_names_from_strangers_reach_the_terminal_harmless(tmp_path: Path):
    write_pair(tmp_path, "a\x1b]0;title\x07")
    (tmp_path / "images" / "b\x1b[2J.tga").touch()
    answer = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert "\x1b" not in answer.output
    assert "b\\x1b[2J.tga" in answer.stdout


def test_an_address_is_told_as_it_was_given():
    pytest.importorskip("upath")
    answer = CliRunner().invoke(app, ["check", "memory://nowhere"])
    assert "memory://nowhere: no such folder" in str(answer.exception)

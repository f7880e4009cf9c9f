"""`hqsod check` finds each kind of trouble, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from hqsod.check import check
from hqsod.cli import app
from hqsod.dataset.layouts import inspect
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

"""The notebook of the demo, run as it stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parents[1] / "demo"


@pytest.mark.slow
def test_the_tour_runs_and_shows_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("make_pairs.py", "outlines.json"):
        shutil.copy(DEMO / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    cells = json.loads((DEMO / "tour.ipynb").read_text("utf-8"))["cells"]
    shown: list[Any] = []
    names = {"display": shown.append}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert len(shown) == 4 + 4 + 1 + 4
    told = capsys.readouterr().out
    for photo in ("astronaut", "chelsea", "coffee", "rocket"):
        assert (tmp_path / "tour" / "built" / "hq-masks" / f"{photo}.png").is_file()
        assert f"{photo:10} trust" in told

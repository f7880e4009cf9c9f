"""Progress without a terminal: a line every half minute, and no bar."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hqsod import progress
from hqsod.progress import progress_bar, speed


@pytest.mark.parametrize("shown", [True, False])
def test_a_line_every_half_minute_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    written = io.StringIO()
    clock = 0.0
    monkeypatch.setattr(progress, "console", Console(file=written, width=80))
    monkeypatch.setattr(progress, "monotonic", lambda: clock)
    with progress_bar(100, "building", before=10, shown=shown) as bar:
        for _ in range(14):
            clock += 5
            bar.advance()
        lines = written.getvalue().splitlines()
    told = [
        "building 16/100, 5.0 s/image, left 0:07:00",
        "building 22/100, 5.0 s/image, left 0:06:30",
    ]
    assert lines == (told if shown else [])


def test_speeds_in_the_words_that_read_better() -> None:
    assert speed(30, 10, "maps") == "3.0 maps/s"
    assert speed(1, 60, "images") == "60.0 s/image"
    assert speed(0, 60, "images") == speed(3, None, "images") == "- images/s"

"""Sheets of predictions."""

from __future__ import annotations

import numpy as np
import pytest

from hqsod.training.sheets import is_shown, sheet


def test_a_sheet_has_a_heading_above_each_column_and_a_row_for_each_image() -> None:
    colour, grey = np.full((10, 20, 3), 200, np.uint8), np.full((30, 30), 50, np.uint8)
    drawn = sheet(("first", "second"), [(colour, grey), (grey, colour)], 100)
    height = drawn.shape[0] - 200
    assert drawn.shape == (height + 200, 200, 3)
    assert (drawn[height : height + 100, :100] == 200).all()
    assert (drawn[height : height + 100, 100:] == 50).all()
    assert (drawn[height + 100 :, :100] == 50).all()
    for column in (drawn[:height, :100], drawn[:height, 100:]):
        assert (column == 255).any()
        assert (column < 128).sum() > 30  # letters


@pytest.mark.parametrize(("count", "most"), [(3, 8), (8, 8), (100, 8)])
def test_as_many_are_shown_as_fit(count: int, most: int) -> None:
    shown = [number for number in range(count) if is_shown(number, count, most)]
    assert len(shown) == min(count, most)

"""Laying pictures on a canvas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqsod import canvas
from hqsod.canvas import Placement
from hqsod.errors import InputError
from tests.conftest import random_picture

sides = st.integers(1, 40)


@given(height=sides, width=sides, rows=st.integers(40, 64), columns=st.integers(40, 64))
def test_unpad_undoes_pad_and_the_border_is_black(height, width, rows, columns):
    picture = random_picture((height, width, 3)) | 1
    placement = Placement.centred((height, width), (rows, columns))
    laid = canvas.pad(picture, placement)
    assert laid.shape == (rows, columns, 3)
    assert (canvas.unpad(laid, placement) == picture).all()
    assert np.count_nonzero(laid) == np.count_nonzero(picture)


def test_placement_is_the_published_one():
    placement = Placement.centred((4 * 267, 4 * 400), (1600, 1600))
    assert (placement.top, placement.left) == ((1600 - 4 * 267) // 2, 0)
    with pytest.raises(ValueError, match="does not fit"):
        Placement.centred((1604, 100), (1600, 1600))


def test_what_is_no_such_canvas_is_not_cut():
    placement = Placement((8, 9), 4, 0, (4, 9))
    assert canvas.unpad(np.zeros((8, 9, 3), np.uint8), placement).shape == (4, 9, 3)
    with pytest.raises(InputError, match="a canvas of 3 x 9; expected 8 x 9"):
        canvas.unpad(np.zeros((3, 9), np.uint8), placement)
    for top, height in ((-1, 4), (5, 4), (0, 0)):
        with pytest.raises(ValueError, match="does not fit"):
            Placement((8, 9), top, 0, (height, 9))

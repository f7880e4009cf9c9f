"""What refining changed: in a mask, over a data set, and where to look."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hqsod.dataset.folders import MASKS, REFINED
from hqsod.dataset.manifest import File, Record
from hqsod.dataset.refining_changes import NEAR, most_changed, redrawn, summarise


def disc(radius: int = 40, centre: tuple[int, int] = (60, 70)) -> np.ndarray:
    return cv2.circle(np.zeros((130, 150), np.uint8), centre, radius, 255, -1)


def test_a_mask_that_stays_on_its_sides_is_not_redrawn() -> None:
    mask = cv2.GaussianBlur(disc(), (0, 0), 2)
    assert redrawn(mask, mask) == 0
    assert redrawn(mask, np.where(mask > 127, np.uint8(255), np.uint8(0))) == 0
    empty = np.zeros_like(mask)
    assert redrawn(empty, empty) == 0


def test_a_mask_that_became_another_is_redrawn_whole() -> None:
    assert redrawn(disc(), 255 - disc()) == 1


@pytest.mark.parametrize("more", [1, 2])
def test_the_share_is_of_the_band_along_the_contour(more: int) -> None:
    """A ring of `more` pixels, of a band that reaches `NEAR` to both sides."""
    assert redrawn(disc(40), disc(40 + more)) == pytest.approx(more / (2 * NEAR + 1), rel=0.15)


def test_the_window_lies_where_most_changed() -> None:
    before, after = disc(), disc()
    cv2.circle(after, (98, 70), 9, 255, -1)
    rows, columns = most_changed(before, after, 32)
    assert rows.start <= 70 < rows.stop
    assert columns.start <= 101 < columns.stop
    assert rows.stop - rows.start == columns.stop - columns.start == 32
    assert most_changed(before, before, 32) == (slice(49, 81), slice(59, 91))
    whole = most_changed(before, after, 400)
    assert before[whole].shape == before.shape


def test_a_data_set_is_summed_up_in_a_line() -> None:
    def record(share: float, iou: float) -> Record:
        return Record("a", "built", "key", {}, quality={"redrawn": share, "iou": iou})

    assert summarise([Record("a", "built", "key", {})]) is None
    changed = summarise([record(0.2, 0.98), record(0, 1.0)])
    assert changed is not None
    assert (changed.masks, changed.changed) == (2, 1)
    assert "1 of 2 masks" in str(changed)
    assert "10.0%" in str(changed)
    same = {layer: File(f"{layer}/a.png", "0" * 64, 1) for layer in (MASKS, REFINED)}
    gave_way = summarise([replace(record(0.2, 0.5), outputs=same)])
    assert (gave_way.changed, gave_way.redrawn, gave_way.iou) == (0, 0, 1)
    unchanged = summarise([record(0, 1.0)])
    assert str(unchanged) == "refining changed none of 1 masks"

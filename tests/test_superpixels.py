"""Superpixels made by SLIC and read from MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from hqsod.errors import InputError
from hqsod.training.superpixels import read_superpixels, slic_superpixels
from tests.golden import inputs


@pytest.mark.parametrize("count", [50, 200])
def test_slic_gives_about_the_number_asked_for(count: int) -> None:
    image = np.asarray(inputs.photo("chelsea").resize((160, 120)))
    labels = slic_superpixels(image, count)
    assert labels.shape == (120, 160)
    assert labels.dtype == np.int16
    found = np.unique(labels)
    assert found.tolist() == list(range(len(found)))
    assert 0.75 * count < len(found) <= 1.1 * count


def test_labels_of_a_mat_file_are_counted_from_zero(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"sp": np.array([[3, 3, 9], [1, 9, 9]])})
    assert read_superpixels(tmp_path / "a.mat").tolist() == [[1, 1, 2], [0, 2, 2]]


def test_bad_mat_files_are_named(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"labels": np.zeros((2, 2))})
    savemat(tmp_path / "cube.mat", {"sp": np.zeros((2, 2, 2))})
    savemat(tmp_path / "many.mat", {"sp": np.arange(40_000).reshape(200, 200)})
    savemat(tmp_path / "whole.mat", {"sp": np.arange(100.0).reshape(10, 10)})
    cut = (tmp_path / "whole.mat").read_bytes()[:-200]
    (tmp_path / "cut.mat").write_bytes(cut)
    (tmp_path / "text.mat").write_text(
        "not a MATLAB file at all, but text that goes on for a while"
    )
    (tmp_path / "empty.mat").touch()
    for name in ("empty", "other", "cube", "many", "cut", "text", "missing"):
        with pytest.raises(InputError, match=name):
            read_superpixels(tmp_path / f"{name}.mat")

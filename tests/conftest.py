"""Fixtures that several tests share: small real photographs with masks, and the profile."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from hqsod import machine
from tests.golden import inputs

machine.set_environment()  # before a test imports torch: several test processes share the machine

settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The development photographs, which a fresh clone does not have."""
    if not (SHARED / "train").is_dir():
        pytest.skip("needs the development photographs (../shared/data), which are not here")
    return SHARED


def write_pair(folder: Path, stem: str, name: str = "chelsea", width: int = 60) -> None:
    """A small photograph as `images/STEM.png` and its mask as `masks/STEM.png`."""
    photo, mask = inputs.photo(name), inputs.mask(name)
    size = (width, round(photo.height * width / photo.width))
    for kind, picture in (("images", photo), ("masks", mask)):
        path = folder / kind / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.resize(size).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A data set of four small pairs, two sizes, one name with a space and one beyond ASCII."""
    folder = tmp_path / "source"
    for stem, name in (("a", "chelsea"), ("b c", "coffee"), ("d", "chelsea"), ("é日", "coffee")):
        write_pair(folder, stem, name)
    return folder


def random_picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Uniform noise, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    """Write an array as a picture with Pillow, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("HQSOD_CACHE", str(folder))
    return folder

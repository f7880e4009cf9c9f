"""Which images a training learns from and which it is validated on: their names decide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Named(Protocol):
    """Anything with a stem: a path, a pair."""

    @property
    def stem(self) -> str:
        """Its name, unique among its like."""


Item = TypeVar("Item", bound=Named)


def holdout_fraction(stem: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:4]) / 2**32


def hold_out(stems: Sequence[str], share: float) -> frozenset[str]:
    """The images to validate on: about `share` of all, and at least one where there are two.

    Whether an image is held out depends on its own name, not on the images around it. Only where
    that would hold out none, the one with the smallest fraction is.

    Args:
        stems: names of the images.
        share: from 0, which holds out none, to below 1.
    """
    fractions = {stem: holdout_fraction(stem) for stem in stems}
    held = {stem for stem, fraction in fractions.items() if fraction < share}
    if not held and share and len(stems) > 1:
        held = {min(fractions, key=lambda stem: fractions[stem])}
    return frozenset(held)


def split(items: Sequence[Item], share: float) -> tuple[list[Item], list[Item]]:
    """Those to train on, and those to validate on; see `hold_out`."""
    held = hold_out([item.stem for item in items], share)
    return [i for i in items if i.stem not in held], [i for i in items if i.stem in held]

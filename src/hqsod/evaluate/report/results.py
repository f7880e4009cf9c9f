"""What an evaluation found: plain values, for every way of showing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hqsod.errors import InputError

UnscoredKind = Literal["missing", "extra", "unreadable", "levels", "size", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Unscored:
    """A file that could not be scored as it is.

    Attributes:
        kind: missing (a ground truth without map), extra (a map without ground truth), unreadable,
            levels (a ground truth that is not black has no foreground), size (map and ground truth
            differ), ambiguous (a second file of one stem).
        file: the file it is about.
        reason: what is wrong, in words.
    """

    kind: UnscoredKind
    file: Path
    reason: str


@dataclass(frozen=True)
class MethodScores:
    """One method on one data set.

    Attributes:
        mean: the data set's scores by name.
        per_image: scores by name, by stem.
        curves: precision, recall, f_measure, e_measure: (256,) float64, mean over images.
        maps: path of each map, by stem.
        unscored: what could not be scored as it is.
    """

    mean: Mapping[str, float]
    per_image: Mapping[str, Mapping[str, float]]
    curves: Mapping[str, NDArray[np.float64]]
    maps: Mapping[str, Path]
    unscored: tuple[Unscored, ...]


@dataclass(frozen=True)
class DatasetScores:
    """Every method on one data set.

    Attributes:
        ground_truths, images: paths by stem; photographs are empty where none were found.
        methods: results by the method's name, in the order given.
    """

    ground_truths: Mapping[str, Path]
    images: Mapping[str, Path]
    methods: Mapping[str, MethodScores]


@dataclass(frozen=True)
class PublishedRow:
    """What a paper printed for one method on one data set. Not measured here.

    Attributes:
        method: its name.
        scores: by name; not all of ours.
        source: the paper, and where its table can be read.
    """

    method: str
    scores: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Evaluation:
    """Every method on every data set.

    Attributes:
        protocol: "standard" or "purnet".
        settings: what was done to maps and ground truths, in words, by topic.
        datasets: results by the data set's name, in the order given.
        published: rows to stand beside ours, by the data set's name.
    """

    protocol: str
    settings: Mapping[str, str]
    datasets: Mapping[str, DatasetScores]
    published: Mapping[str, list[PublishedRow]] = field(default_factory=dict)

    @property
    def unscored(self) -> list[tuple[str, str, Unscored]]:
        """Every file that could not be scored: (data set, method, file)."""
        return [
            (dataset, method, unscored)
            for dataset, scores in self.datasets.items()
            for method, result in scores.methods.items()
            for unscored in result.unscored
        ]

    @property
    def sources(self) -> dict[str, list[str]]:
        """The published methods by their source."""
        methods: dict[str, dict[str, None]] = {}
        for row in chain.from_iterable(self.published.values()):
            methods.setdefault(row.source, {})[row.method] = None
        return {source: list(of_source) for source, of_source in methods.items()}

    def require_complete(self) -> None:
        """Check that every file was scored.

        Raises:
            InputError: says how many were not, and of which kinds.
        """
        if self.unscored:
            kinds = sorted({unscored.kind for _, _, unscored in self.unscored})
            raise InputError(
                f"{len(self.unscored)} files could not be scored ({', '.join(kinds)})",
                expected="one readable map of the same size for each ground truth",
                fix="correct them, or pass --resize for sizes and --allow-missing for the rest",
            )

    def as_json(self) -> dict[str, Any]:
        """The scores as plain values, as `hqsod evaluate --json` writes them."""
        return {
            "protocol": self.protocol,
            "settings": dict(self.settings),
            "datasets": {
                dataset: {
                    method: {
                        "mean": dict(result.mean),
                        "per_image": {stem: dict(s) for stem, s in result.per_image.items()},
                    }
                    for method, result in scores.methods.items()
                }
                for dataset, scores in self.datasets.items()
            },
        }

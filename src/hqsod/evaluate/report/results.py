"""What an evaluation found: plain values, for every way of showing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ProblemKind = Literal["missing", "extra", "unreadable", "size", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that could not be scored as it is.

    Attributes:
        kind: missing (a ground truth without map), extra (a map without ground truth), unreadable,
            size (map and ground truth differ), ambiguous (a second file of one stem).
        file: the file it is about.
        detail: what is wrong, in words.
    """

    kind: ProblemKind
    file: Path
    detail: str


@dataclass(frozen=True)
class MethodScores:
    """One method on one data set.

    Attributes:
        mean: the data set's scores by name.
        f_from_mean_pr: highest and mean F of the mean precision-recall curve, by name.
        per_image: scores by name, by stem.
        curves: precision, recall, f_measure, e_measure: (256,) float64, mean over pictures.
        maps: path of each map, by stem.
        problems: what could not be scored as it is.
    """

    mean: Mapping[str, float]
    f_from_mean_pr: Mapping[str, float]
    per_image: Mapping[str, Mapping[str, float]]
    curves: Mapping[str, NDArray[np.float64]]
    maps: Mapping[str, Path]
    problems: tuple[Problem, ...]


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
class Published:
    """A published table: scores by data set, row and name. Not measured here.

    Attributes:
        source: the paper.
        protocol: the protocol that follows its evaluation.
        rows: its scores.
    """

    source: str = ""
    protocol: str = ""
    rows: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Every method on every data set.

    Attributes:
        protocol: "standard" or "purnet".
        settings: what was done to maps and ground truths, in words, by topic.
        datasets: results by the data set's name, in the order given.
        published: a published table to stand beside ours.
    """

    protocol: str
    settings: Mapping[str, Any]
    datasets: Mapping[str, DatasetScores]
    published: Published = Published()

    @property
    def problems(self) -> list[tuple[str, str, Problem]]:
        """Every (data set, method, problem)."""
        return [
            (dataset, method, problem)
            for dataset, scores in self.datasets.items()
            for method, result in scores.methods.items()
            for problem in result.problems
        ]

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

"""From the scores of images to those of a data set.

The standard protocol averages the F and E curves of the images and then takes the highest value and
the mean, as PySODMetrics does. Most papers compute F from the averaged precision-recall curve
instead: `f_max_pr` and `f_mean_pr`. They differ, so each has its name.
"""

from __future__ import annotations

import numpy as np

from hqsod.metrics.protocols import ImageScores, Protocol
from hqsod.metrics.regions import Curve, Curves, curves, f_measure


class Average:
    """The mean over images, taken one at a time; keeps sums, not images."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._count = 0
        self._scores: dict[str, float] = {}
        self._curves = np.zeros((4, 256))

    def add(self, image: ImageScores) -> None:
        """Take one more image into the mean."""
        self._count += 1
        for name, value in image.scores.items():
            self._scores[name] = self._scores.get(name, 0.0) + value
        one = curves(image.tally)
        self._curves += (one.precision, one.recall, one.f_measure, one.e_measure)

    @property
    def curves(self) -> Curves:
        """The mean curves; all 0 before the first image."""
        return Curves(*(self._curves / max(self._count, 1)))

    @property
    def mean(self) -> dict[str, float]:
        """The data set's scores by name; under purnet `f` in place of precision and recall."""
        mean = {name: total / self._count for name, total in self._scores.items()}
        curves = self.curves
        if self._protocol == "standard":
            mean["f_max"], mean["f_mean"] = _peak_and_mean(curves.f_measure)
            mean["e_max"], mean["e_mean"] = _peak_and_mean(curves.e_measure)
        else:
            precision, recall = (np.asarray(mean.pop(name)) for name in ("precision", "recall"))
            f = float(f_measure(precision, recall))
            mean = {"mae": mean.pop("mae"), "f_weighted": mean.pop("f_weighted"), "f": f} | mean
        of_mean_pr = f_measure(curves.precision, curves.recall)
        mean["f_max_pr"], mean["f_mean_pr"] = _peak_and_mean(of_mean_pr)
        return mean


def _peak_and_mean(curve: Curve) -> tuple[float, float]:
    return float(curve.max()), float(curve.mean())

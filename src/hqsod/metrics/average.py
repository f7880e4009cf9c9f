"""From the scores of pictures to those of a data set.

The standard protocol averages the F and E curves of the pictures and then takes the highest value
and the mean, as PySODMetrics does and papers report. Older papers compute F from the averaged
precision-recall curve instead; `f_from_mean_pr` is that one. They differ, so each has its name.
"""

from __future__ import annotations

import numpy as np

from hqsod.metrics.protocols import ImageScores, Protocol
from hqsod.metrics.regions import Curves, curves, f_measure


class Average:
    """The mean over pictures, taken one picture at a time; keeps sums, not pictures."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._count = 0
        self._scores: dict[str, float] = {}
        self._curves = np.zeros((4, 256))

    def add(self, image: ImageScores) -> None:
        """Take one more picture into the mean."""
        self._count += 1
        for name, value in image.scores.items():
            self._scores[name] = self._scores.get(name, 0.0) + value
        one = curves(image.tally)
        self._curves += (one.precision, one.recall, one.f_measure, one.e_measure)

    @property
    def curves(self) -> Curves:
        """The mean curves; all 0 before the first picture."""
        return Curves(*(self._curves / max(self._count, 1)))

    @property
    def mean(self) -> dict[str, float]:
        """The data set's scores by name; under purnet `f` in place of precision and recall."""
        mean = {name: total / self._count for name, total in self._scores.items()}
        if self._protocol == "standard":
            curves = self.curves
            mean |= {
                "f_max": float(curves.f_measure.max()),
                "f_mean": float(curves.f_measure.mean()),
                "e_max": float(curves.e_measure.max()),
                "e_mean": float(curves.e_measure.mean()),
            }
            return mean
        both = {name: np.asarray(mean.pop(name)) for name in ("precision", "recall")}
        f = float(f_measure(both["precision"], both["recall"]))
        return {"mae": mean.pop("mae"), "f_weighted": mean.pop("f_weighted"), "f": f} | mean

    @property
    def f_from_mean_pr(self) -> dict[str, float]:
        """`f_max_pr` and `f_mean_pr`: highest and mean F of the mean precision-recall curve."""
        curve = f_measure(self.curves.precision, self.curves.recall)
        return {"f_max_pr": float(curve.max()), "f_mean_pr": float(curve.mean())}

"""Which scores a protocol reports for one image, under which names.

`standard` follows what the field has settled on and reports to 1e-6 what PySODMetrics 1.6 does.
`purnet` follows the evaluation code published with PurNet (see `hqsod.metrics.purnet`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hqsod.errors import SettingsError
from hqsod.images import resize
from hqsod.masks import GROUND_TRUTH_THRESHOLD
from hqsod.metrics import boundary, purnet, regions
from hqsod.metrics.comparison import SALIENT_FROM, Comparison, compare
from hqsod.metrics.regions import Tally
from hqsod.metrics.structure import s_measure
from hqsod.metrics.weighted import NEAREST_TURNING, weighted_f

Protocol = Literal["standard", "purnet"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

MEASURES: dict[str, Callable[[Comparison, int], float]] = {
    "ber": regions.ber,
    "iou": regions.iou,
    "dice": regions.dice,
    "mba": boundary.mba,
    "biou": boundary.biou,
    "msiou": boundary.msiou,
}
"""Measures of a map cut at one threshold, to be asked for by name."""

RESIZING = {"standard": Image.Resampling.BILINEAR, "purnet": Image.Resampling.NEAREST}

_STRETCHED = "each stretched to [0, 1] by its lowest and highest level"
_FROM_PR = "of the data set's mean precision-recall curve, as most papers print it"
WORDS: dict[Protocol, dict[str, str]] = {
    "standard": {
        "maps": f"{_STRETCHED}; a constant one is its level / 255",
        "thresholds": "256, from 0 to 255",
        "Fmax, Fmean": "of the F curve averaged over images, as PySODMetrics prints it",
        "Fmax (PR), Fmean (PR)": _FROM_PR,
        "F": "beta^2 = 0.3",
    },
    "purnet": {
        "maps": f"{_STRETCHED}; a constant one is 0 or 1",
        "ground truth": "its highest level is foreground",
        "thresholds": "256, from 0 to 255",
        "F": "of the data set's mean precision and recall at twice the map's mean, beta^2 = 0.3",
        "Fmax (PR), Fmean (PR)": _FROM_PR,
    },
}
"""What a protocol does, by topic; the titles are those of the report's tables."""


@dataclass(frozen=True)
class ScoreSettings:
    """How maps are scored; the same settings give the same numbers.

    Attributes:
        protocol: "standard" or "purnet".
        also: names in `MEASURES`, reported besides the protocol's own.
        gt_threshold: standard only; ground truth above it (0 to 254) is foreground.
        threshold: level (1 to 255) from which the measures in `also` take a pixel as salient.
        resize: whether a map of another size is brought to its ground truth's, bilinearly, or to
            the nearest pixel under purnet.

    Raises:
        SettingsError: a name or number that is not one of these.
    """

    protocol: Protocol = "standard"
    also: tuple[str, ...] = ()
    gt_threshold: int = GROUND_TRUTH_THRESHOLD
    threshold: int = SALIENT_FROM
    resize: bool = False

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise SettingsError(f"protocol {self.protocol!r}", expected=" or ".join(PROTOCOLS))
        for name in self.also:
            if name not in MEASURES:
                raise SettingsError(f"measure {name!r}", expected=f"one of {', '.join(MEASURES)}")
        if not 0 <= self.gt_threshold <= 254 or not 1 <= self.threshold <= 255:
            raise SettingsError(
                f"gt_threshold {self.gt_threshold} and threshold {self.threshold}",
                expected="a gt_threshold of 0 to 254 and a threshold of 1 to 255",
            )
        if self.protocol == "purnet" and self.gt_threshold != GROUND_TRUTH_THRESHOLD:
            raise SettingsError(
                f"gt_threshold {self.gt_threshold} with the purnet protocol",
                expected="no threshold: it takes the brightest pixels as foreground",
                fix="leave it out or use the standard protocol",
            )

    def in_words(self) -> dict[str, str]:
        """What is done to maps and ground truths, in words, by topic."""
        words = {"protocol": self.protocol, **WORDS[self.protocol]}
        if self.protocol == "standard":
            words["ground truth"] = f"above {self.gt_threshold} of 255 is foreground"
        if self.also:
            words[", ".join(self.also)] = f"binarised at {self.threshold} of 255, not stretched"
        method = RESIZING[self.protocol].name.lower()
        resized = f"resized to the ground truth's size, {method}"
        return words | {"other sizes": resized if self.resize else "refused"}


@dataclass(frozen=True)
class ImageScores:
    """What one image scored.

    Attributes:
        scores: by name; `mae`, `f_max`, ... under standard, and `precision`, `recall` in place of
            the F scores under purnet.
        tally: the counts behind its curves.
    """

    scores: dict[str, float]
    tally: Tally


def score(
    prediction: NDArray[np.uint8],
    ground_truth: NDArray[np.uint8],
    protocol: Protocol = "standard",
    also: Sequence[str] = (),
) -> dict[str, float]:
    """Score one map.

    Args:
        prediction: (H, W) uint8 saliency map, 0 to 255.
        ground_truth: (H, W) uint8; above 128 is foreground under the standard protocol.
        protocol: "standard" or "purnet".
        also: further measures by name, see `MEASURES`.

    Returns:
        standard: mae, f_max, f_mean, f_adaptive, f_weighted, s_measure, e_max, e_mean, e_adaptive;
        purnet: mae, f_weighted, precision, recall; then those in `also`. Never NaN.

    Raises:
        InputError: not two uint8 arrays of one size, or an empty one.
        SettingsError: an unknown protocol or measure.
    """
    return score_pair(prediction, ground_truth, ScoreSettings(protocol, tuple(also))).scores


def score_pair(
    prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8], settings: ScoreSettings
) -> ImageScores:
    """Score one map under `settings` and keep the counts behind its curves.

    Args, raises: as `score`; sizes may differ where the settings say that maps are resized.
    """
    if settings.resize and prediction.shape != ground_truth.shape:
        height, width = ground_truth.shape
        prediction = resize(prediction, (height, width), RESIZING[settings.protocol])
    if settings.protocol == "purnet":
        pair = purnet.compare_purnet(prediction, ground_truth)
        tally = regions.tally(pair)
        scores = _purnet(pair, ground_truth)
    else:
        pair = compare(prediction, ground_truth, settings.gt_threshold)
        tally = regions.tally(pair)
        scores = _standard(pair, tally)
    for name in settings.also:
        scores[name] = MEASURES[name](pair, settings.threshold)
    return ImageScores(scores, tally)


def _standard(pair: Comparison, tally: Tally) -> dict[str, float]:
    curves = regions.curves(tally)
    f_adaptive, e_adaptive = regions.adaptive(pair)
    return {
        "mae": regions.mae(pair),
        "f_max": float(curves.f_measure.max()),
        "f_mean": float(curves.f_measure.mean()),
        "f_adaptive": f_adaptive,
        "f_weighted": weighted_f(pair),
        "s_measure": s_measure(pair),
        "e_max": float(curves.e_measure.max()),
        "e_mean": float(curves.e_measure.mean()),
        "e_adaptive": e_adaptive,
    }


def _purnet(pair: Comparison, ground_truth: NDArray[np.uint8]) -> dict[str, float]:
    precision, recall = purnet.precision_recall(pair, ground_truth)
    return {
        "mae": regions.mae(pair),
        "f_weighted": weighted_f(pair, NEAREST_TURNING),
        "precision": precision,
        "recall": recall,
    }

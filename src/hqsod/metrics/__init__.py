"""Scores of saliency maps against ground truths, one image at a time.

`score` gives a protocol's measures in one call on two uint8 arrays. Each measure is also a pure
function of `compare(prediction, ground_truth)`, with its paper, range and edge cases.
"""

from __future__ import annotations

from hqsod.metrics.average import Average
from hqsod.metrics.boundary import biou, mba, msiou
from hqsod.metrics.comparison import Comparison, compare
from hqsod.metrics.protocols import (
    MEASURES,
    PROTOCOLS,
    ImageScores,
    Protocol,
    ScoreSettings,
    score,
    score_pair,
)
from hqsod.metrics.purnet import compare_purnet
from hqsod.metrics.regions import (
    Curves,
    Tally,
    adaptive,
    ber,
    curves,
    dice,
    e_measure,
    f_measure,
    iou,
    mae,
    mask_iou,
    tally,
)
from hqsod.metrics.structure import s_measure
from hqsod.metrics.weighted import weighted_f

__all__ = [
    "MEASURES",
    "PROTOCOLS",
    "Average",
    "Comparison",
    "Curves",
    "ImageScores",
    "Protocol",
    "ScoreSettings",
    "Tally",
    "adaptive",
    "ber",
    "biou",
    "compare",
    "compare_purnet",
    "curves",
    "dice",
    "e_measure",
    "f_measure",
    "iou",
    "mae",
    "mask_iou",
    "mba",
    "msiou",
    "s_measure",
    "score",
    "score_pair",
    "tally",
    "weighted_f",
]

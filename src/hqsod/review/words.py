"""Quality figures in words: what each means, and what this one says."""

from __future__ import annotations

from dataclasses import dataclass

from hqsod.dataset.manifest import Record

VERDICTS = ("good", "warn", "bad")


@dataclass(frozen=True, slots=True)
class Figure:
    """How a quality figure is spoken of.

    Attributes:
        name: its key in the manifest.
        title: what the page calls it.
        unit: what stands after its value.
        warn: value from which it wants a look.
        bad: value from which it is the likely reason for a flag; above `warn` where large values
            are the doubtful ones.
        words: what it says when good, when it wants a look, and when bad.
        percent: whether it reads best as a percentage.
    """

    name: str
    title: str
    unit: str
    warn: float
    bad: float
    words: tuple[str, str, str]
    percent: bool = True

    @property
    def high_is_bad(self) -> bool:
        """Whether large values are the doubtful ones."""
        return self.bad > self.warn


# The limits lie near the 80th and 95th percentile of right masks, built with bicubic images and
# the guided filter; those of the prediction with purnet-light, on images it had not seen. The
# first of `mended` is above 69 of 70 right masks that hqsod-refiner-small refined.
_ALL = (
    Figure(
        name="iou",
        title="overlap before and after refining",
        unit="overlap",
        warn=0.96,
        bad=0.92,
        words=("Refining changed little", "Refining changed a fair bit", "Refining changed a lot"),
    ),
    Figure(
        name="mended",
        title="changed by more than a moved contour",
        unit="of the mask mended",
        warn=0.002,
        bad=0.02,
        words=(
            "Refining moved the contour and no more",
            "Refining added or removed a small part",
            "Refining added or removed a part",
        ),
    ),
    Figure(
        name="redrawn",
        title="pixels near the contour that changed sides",
        unit="of the contour redrawn",
        warn=0.15,
        bad=0.3,
        words=(
            "The contour moved less than it usually does",
            "The contour moved more than it usually does",
            "The contour moved far more than it usually does",
        ),
    ),
    Figure(
        name="candidate_iou",
        title="overlap with the first candidate",
        unit="overlap",
        warn=0.8,
        bad=0.6,
        words=(
            "The first candidate shows the same object",
            "The first candidate shows a somewhat different object",
            "The first candidate shows a different object",
        ),
    ),
    Figure(
        name="fog",
        title="undecided pixels",
        unit="of the object undecided",
        warn=0.03,
        bad=0.12,
        words=(
            "Hardly a pixel is undecided",
            "Some pixels are neither object nor background",
            "Many pixels are neither object nor background",
        ),
    ),
    Figure(
        name="prediction_iou",
        title="overlap with the network's own prediction",
        unit="overlap",
        warn=0.8,
        bad=0.6,
        words=(
            "A network sees the same object",
            "A network sees a somewhat different object",
            "A network sees a different object",
        ),
    ),
    Figure(
        name="edge_weakest",
        title="weakest edge along the contour",
        unit="edge strength",
        warn=0.7,
        bad=0.55,
        words=(
            "The contour lies on edges all round",
            "A stretch of the contour lies on weak edges",
            "A stretch of the contour lies on no edge",
        ),
    ),
    Figure(
        name="edge_excess",
        title="edges on the contour rather than inside",
        unit="edge excess",
        warn=0.16,
        bad=0.08,
        words=(
            "Edges are stronger on the contour than inside it",
            "Edges are hardly stronger on the contour than inside it",
            "Edges are no stronger on the contour than inside it",
        ),
        percent=False,
    ),
    Figure(
        name="side_contrast",
        title="weakest contrast across the contour",
        unit="contrast",
        warn=0.4,
        bad=0.1,
        words=(
            "Inside and outside differ all round",
            "Along a stretch inside and outside look alike",
            "Along a stretch inside and outside look the same",
        ),
        percent=False,
    ),
    Figure(
        name="misfit",
        title="patch that fits the other side",
        unit="of the object",
        warn=0.13,
        bad=0.19,
        words=(
            "No patch looks misplaced",
            "A patch near the contour looks like the other side",
            "A large patch near the contour looks like the other side",
        ),
    ),
)
FIGURES = {figure.name: figure for figure in _ALL}


def describe(record: Record) -> list[dict[str, str]]:
    """The record's figures in words, the most doubtful first.

    Returns:
        Of each its `name`, its `words`, its `value`, and as `verdict` good, warn or bad.
    """
    known = [name for name in record.quality if name in FIGURES]
    lines = [_line(FIGURES[name], record.quality[name]) for name in known]
    return sorted(lines, key=lambda line: VERDICTS.index(line["verdict"]), reverse=True)


def _line(figure: Figure, value: float) -> dict[str, str]:
    sign = 1 if figure.high_is_bad else -1
    steps = sum(sign * value >= sign * limit for limit in (figure.warn, figure.bad))
    said = f"{round(value, 2):g}"
    if figure.percent:
        said = f"{value:.1%}" if value <= 1 else "over 100%"
    return {
        "name": figure.name,
        "words": figure.words[steps],
        "value": f"{said} {figure.unit}",
        "verdict": VERDICTS[steps],
    }

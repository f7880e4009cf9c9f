"""Quality figures in words: what each means, and what this one says."""

from __future__ import annotations

from dataclasses import dataclass

from hqsod.dataset.manifest import Record


@dataclass(frozen=True, slots=True)
class Figure:
    """How a quality figure is spoken of.

    Attributes:
        name: its key in the manifest.
        title: what the page calls it.
        unit: what stands after its value.
        high_is_bad: whether large values are the doubtful ones.
        warn: value from which it wants a look.
        bad: value from which it is the likely reason for a flag.
        words: what it says when good, when it wants a look, and when bad.
        percent: whether it reads best as a percentage.
    """

    name: str
    title: str
    unit: str
    high_is_bad: bool
    warn: float
    bad: float
    words: tuple[str, str, str]
    percent: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one pair, ready to be shown; `verdict` is good, warn or bad."""

    name: str
    words: str
    value: str
    verdict: str


# The limits lie near the 80th and 95th percentile of right masks, built with bicubic images and
# the guided filter; those of the prediction with purnet-light, on images it had not seen.
_ALL = (
    Figure(
        name="iou",
        title="overlap before and after refining",
        unit="overlap",
        high_is_bad=False,
        warn=0.96,
        bad=0.92,
        words=("Refining changed little", "Refining changed some", "Refining changed much"),
    ),
    Figure(
        name="redrawn",
        title="pixels near the contour that changed sides",
        unit="of the contour redrawn",
        high_is_bad=True,
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
        high_is_bad=False,
        warn=0.8,
        bad=0.6,
        words=(
            "The first candidate shows the same object",
            "The first candidate shows a somewhat different object",
            "The first candidate shows another object",
        ),
    ),
    Figure(
        name="fog",
        title="undecided pixels",
        unit="of the object undecided",
        high_is_bad=True,
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
        high_is_bad=False,
        warn=0.8,
        bad=0.6,
        words=(
            "A network sees the same object",
            "A network sees a somewhat different object",
            "A network sees another object",
        ),
    ),
    Figure(
        name="edge_weakest",
        title="weakest edge along the contour",
        unit="edge strength",
        high_is_bad=False,
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
        high_is_bad=False,
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
        high_is_bad=False,
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
        high_is_bad=True,
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


def describe(record: Record) -> list[Line]:
    """The record's figures in words, the most doubtful first."""
    known = ((FIGURES.get(name), value) for name, value in record.quality.items())
    lines = [_line(figure, value) for figure, value in known if figure is not None]
    return sorted(lines, key=lambda line: ("bad", "warn", "good").index(line.verdict))


def _line(figure: Figure, value: float) -> Line:
    sign = 1 if figure.high_is_bad else -1
    steps = sum(sign * value >= sign * limit for limit in (figure.warn, figure.bad))
    said = f"{round(value, 2):g}"
    if figure.percent:
        said = f"{value:.1%}" if value <= 1 else "over 100%"
    verdict = ("good", "warn", "bad")[steps]
    return Line(figure.name, figure.words[steps], f"{said} {figure.unit}", verdict)

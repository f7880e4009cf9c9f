"""Quality figures in words: what each means, and what this one says."""

from __future__ import annotations

from dataclasses import dataclass

from hqsod.manifest import Record


@dataclass(frozen=True, slots=True)
class Figure:
    """How a quality figure is spoken of.

    Attributes:
        name: its key in the manifest.
        title: what the page calls it.
        high_is_bad: whether large values are the doubtful ones.
        warn: value from which it wants a look.
        bad: value from which it is the likely reason for a flag.
        words: what it says when good, when it wants a look, and when bad.
        percent: whether it reads best as a percentage.
    """

    name: str
    title: str
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


FIGURES: dict[str, Figure] = {}


def describe(record: Record) -> list[Line]:
    """The record's figures in words, in the manifest's order."""
    known = ((FIGURES.get(name), value) for name, value in record.quality.items())
    return [_line(figure, value) for figure, value in known if figure is not None]


def _line(figure: Figure, value: float) -> Line:
    sign = 1 if figure.high_is_bad else -1
    steps = sum(sign * value >= sign * limit for limit in (figure.warn, figure.bad))
    said = f"{value:.1%}" if figure.percent else f"{value:.2f}"
    return Line(figure.name, figure.words[steps], said, ("good", "warn", "bad")[steps])

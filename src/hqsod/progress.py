"""How far every job is: done, images per second, time left; on standard error.

In a terminal it is a bar. Elsewhere, such as under nohup or Slurm, it is a line every half minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hqsod.errors import printable

console = Console(stderr=True)


QUIET = 30.0  # seconds between two lines where there is no terminal


def speed(done: float, seconds: float | None, unit: str) -> str:
    """Units per second, or seconds per unit where that reads better.

    Not rich's own speed, which leaves out what came before the first unit: writers that end
    together would be told as a hundred images a second.
    """
    if not done or not seconds:
        return f"- {unit}/s"
    rate = done / seconds
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit.removesuffix('s')}"


class _Speed(ProgressColumn):
    """The speed since the start."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(speed(task.completed - task.fields["before"], task.elapsed, self.unit))


class Bar:
    """A running bar: call `advance` once for each unit done."""

    def __init__(
        self, progress: Progress, total: int, description: str, unit: str, before: int
    ) -> None:
        self._progress, self._unit, self._before = progress, unit, before
        self._task = progress.add_task(description, total=total, completed=before, before=before)
        self._begun = self._told = monotonic()

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self._progress.advance(self._task, count)
        now = monotonic()
        seen = self._progress.console.is_terminal or self._progress.disable
        if not seen and now - self._told >= QUIET:
            self._told = now
            self._tell(now - self._begun)

    def _tell(self, seconds: float) -> None:
        """Print a line for those who see no bar."""
        task = self._progress.tasks[0]
        done, total = int(task.completed), int(task.total or 0)
        fresh = done - self._before
        left = timedelta(seconds=round((total - done) * seconds / fresh)) if fresh else "unknown"
        note(f"{task.description} {done}/{total}, {speed(fresh, seconds, self._unit)}, left {left}")


def note(line: str) -> None:
    """Print one line on standard error, above a bar that runs; file names in it are harmless."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(
    total: int, description: str, unit: str = "images", *, before: int = 0, shown: bool = True
) -> Iterator[Bar]:
    """Show a bar while the block runs.

    Args:
        total: number of units to come.
        description: what is being done, one word or two.
        unit: what is counted, in the plural.
        before: units that an earlier run has done.
        shown: False in all but one of several processes that work together.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(unit),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not shown) as progress:
        yield Bar(progress, total, description, unit, before)

"""One progress bar for every job: done, pictures per second, time left; on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


class _Speed(ProgressColumn):
    """Units per second since the start, or seconds per unit where that reads better.

    Not rich's own speed, which leaves out what came before the first unit: writers that end
    together would be told as a hundred pictures a second.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["before"]
        if not done or not task.elapsed:
            return Text(f"- {self.unit}/s")
        speed = done / task.elapsed
        one = self.unit.removesuffix("s")
        return Text(f"{speed:.1f} {self.unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{one}")


class Bar:
    """A running bar: call `advance` once for each unit done, `note` for a line above the bar."""

    def __init__(self, progress: Progress, total: int, description: str, before: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, completed=before, before=before)

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self._progress.advance(self._task, count)

    def note(self, line: str) -> None:
        """Print one line without breaking the bar."""
        note(line)


def note(line: str) -> None:
    """Print one line on standard error, above a bar that runs; file names in it are harmless."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(
    total: int, description: str, unit: str = "pictures", *, before: int = 0, shown: bool = True
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
        yield Bar(progress, total, description, before)

"""What a run has to do: the pairs that are missing or differ, in batches, and what they replace.

What is recorded and still there is kept, so a build that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from hqsod import images
from hqsod.addresses import sizes
from hqsod.building.pair import PairTask, find_placement, hash_files, rejected
from hqsod.building.recipes import BuildSettings, differences
from hqsod.dataset.folders import LAYERS
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.errors import InputError, SettingsError
from hqsod.pairs import Pair, require_utf8


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of a run.

    Attributes:
        batches: tasks of images of one size; each batch holds one that is needed.
        unreadable: records of the pairs that cannot be opened.
        earlier: by stem, what was built before.
        known: whether the data set is empty, or holds at least one pair of this source.
    """

    batches: tuple[tuple[PairTask, ...], ...]
    unreadable: tuple[Record, ...]
    earlier: Mapping[str, Record]
    known: bool

    @property
    def to_build(self) -> list[PairTask]:
        """The tasks that are needed."""
        return [task for batch in self.batches for task in batch if task.needed]


def make_plan(
    pairs: Sequence[Pair], records: Mapping[str, Record], dest: Path, settings: BuildSettings
) -> Plan:
    """Hash every pair's files, and find out what is missing or differs.

    Args:
        pairs: what to build from.
        records: the newest of every stem in the data set.
        dest: where the data set is, or will be.
        settings: of this run.
    """
    earlier = {stem: record for stem, record in records.items() if record.status == "built"}
    held = {f"{x}/{name}": size for x in LAYERS for name, size in sizes(dest / x).items()}
    unreadable: list[Record] = []
    by_size: dict[tuple[int, int], list[PairTask]] = {}
    known = not earlier

    def look(pair: Pair) -> tuple[PairTask, tuple[int, int] | InputError]:
        task = PairTask(pair, {})
        try:
            require_utf8(pair)
            task = PairTask(pair, hash_files(pair))
            current = _is_current(earlier.get(pair.stem), task.files, held, settings)
            task = replace(task, needed=not current)
            size = images.read_size(pair.image)
            find_placement(size, settings.canvas, str(pair.image))
        except InputError as error:
            return task, error
        return task, size

    with ThreadPoolExecutor() as pool:
        for task, outcome in pool.map(look, pairs):
            known = known or _is_of_source(task, earlier.get(task.pair.stem))
            if isinstance(outcome, InputError):
                unreadable.append(rejected(task, str(outcome), settings))
            else:
                by_size.setdefault(outcome, []).append(task)
    return Plan(_batches(by_size, settings.batch), tuple(unreadable), earlier, known)


def _batches(
    by_size: Mapping[tuple[int, int], Sequence[PairTask]], most: int
) -> tuple[tuple[PairTask, ...], ...]:
    """Batches cut from all tasks, needed or not; those without work are left out."""
    batches = (
        tuple(tasks[first : first + most])
        for tasks in by_size.values()
        for first in range(0, len(tasks), most)
    )
    return tuple(batch for batch in batches if any(task.needed for task in batch))


def _is_current(
    record: Record | None, files: dict[str, File], held: dict[str, int], settings: BuildSettings
) -> bool:
    """Whether the pair was built from these bytes with these settings and its files are there."""
    return (
        record is not None
        and record.recipe == settings.key
        and all(record.sources[name].sha256 == file.sha256 for name, file in files.items())
        and all(held.get(file.path) == file.size for file in record.outputs.values())
    )


def _is_of_source(task: PairTask, record: Record | None) -> bool:
    """Whether the pair was built from these files before: from these bytes, or at these paths."""
    if record is None or not task.files:
        return False
    known = [(record.sources[name], file) for name, file in task.files.items()]
    return all(old.sha256 == new.sha256 or old.path == new.path for old, new in known)


def require_leave(
    plan: Plan,
    manifest: Manifest,
    dest: Path,
    settings: BuildSettings,
    *,
    replace: bool,
    add: bool,
) -> None:
    """Check that the plan replaces and adds nothing that was not asked for.

    Raises:
        SettingsError: it does; the message says what would happen.
    """
    again = [task for task in plan.to_build if task.pair.stem in plan.earlier]
    records = [plan.earlier[task.pair.stem] for task in again]
    otherwise = [record for record in records if record.recipe != settings.key]
    if otherwise and not replace:
        before = manifest.recipe(otherwise[0].recipe)
        raise SettingsError(
            f"{dest}: {len(otherwise)} of its pairs were built with other settings and would be "
            f"built again ({differences(before, settings)})",
            fix="leave the options out to go on as it was made, add --replace to build these pairs "
            "again, or choose another folder",
        )
    others = [
        record
        for task, record in zip(again, records, strict=True)
        if not _is_of_source(task, record)
    ]
    if others and not replace:
        raise SettingsError(
            f"{dest}: {len(others)} of its pairs were built from other files of the same names, "
            f"such as {others[0].sources['image'].path}, and would be rebuilt from the ones given",
            fix="add --replace to do so, or choose another folder",
        )
    if plan.to_build and not (plan.known or add):
        raise SettingsError(
            f"{dest}: holds {len(plan.earlier)} pairs of another source, and "
            f"{len(plan.to_build) - len(again)} would be added",
            fix="add --add to do so, or choose another folder",
        )

"""The job: a data set of photographs and masks goes in, its high-quality version comes out.

    hash, plan batches -> read -> upscale -> place -> refine -> judge -> write -> record

Killed at any moment and started again, it does what is missing and ends with the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hqsod import images
from hqsod.addresses import sizes
from hqsod.building.engines import Engine
from hqsod.building.home import open_home
from hqsod.building.pair import PairTask, find_placement, hash_files, rejected
from hqsod.building.recipes import BuildSettings
from hqsod.dataset import card
from hqsod.dataset.folders import IMAGES, MASKS, REFINED
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.dataset.refining import Refining, summarise
from hqsod.errors import InputError
from hqsod.progress import Bar, progress_bar
from hqsod.types import Pair


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        built: pairs built in this run.
        kept: pairs that were up to date.
        rejected: stems of the pairs that could not be built.
        flagged: stems in the data set whose refined mask a person should look at.
        refining: what refining did to the masks in the data set; None without a refiner.
        left: stems in the data set that are no longer among the pairs; they stay as they are.
        card: the data set's README.
        sheet: its contact sheet.
    """

    built: int
    kept: int
    rejected: tuple[str, ...]
    flagged: tuple[str, ...]
    refining: Refining | None
    left: tuple[str, ...]
    card: Path
    sheet: Path


def build(pairs: Sequence[Pair], dest: Path, engine: Engine) -> Summary:
    """Build a data set at `dest`, a folder or an address, or bring it up to date.

    Raises:
        OutputError: `dest` cannot be written to, or another run is at work there.
    """
    settings = engine.settings
    with open_home(dest) as home, Manifest.open(home.folder, create=True) as manifest:
        manifest.add_recipe(settings.key, settings.as_dict())
        batches, unreadable = _plan(pairs, manifest.latest(), dest, settings)
        to_build = sum(task.needed for batch in batches for task in batch)
        failed: list[str] = []
        with progress_bar(to_build, "building") as bar:
            for record in unreadable:
                _account(record, manifest, bar, failed)
            for record in engine.run(batches, dest):
                _account(record, manifest, bar, failed)
                bar.advance()
                home.save()
        records = [record for record in manifest.latest().values() if record.status == "built"]
        card_path, sheet = card.write(dest, manifest)
    built = to_build + len(unreadable) - len(failed)
    return Summary(
        built=built,
        kept=len(pairs) - built - len(failed),
        rejected=tuple(failed),
        flagged=tuple(record.stem for record in records if record.flagged),
        refining=summarise(records),
        left=tuple(sorted({record.stem for record in records} - {pair.stem for pair in pairs})),
        card=card_path,
        sheet=sheet,
    )


def _account(record: Record, manifest: Manifest, bar: Bar, failed: list[str]) -> None:
    manifest.append(record)
    if record.status == "rejected":
        failed.append(record.stem)
        bar.note(f"rejected: {record.notes}")
    elif record.notes:
        bar.note(f"converted: {record.notes}")


def _plan(
    pairs: Sequence[Pair], records: dict[str, Record], dest: Path, settings: BuildSettings
) -> tuple[list[list[PairTask]], list[Record]]:
    """Batches of pictures of one size that hold work to do, and the pairs that cannot be opened."""
    unreadable: list[Record] = []
    layers = (IMAGES, MASKS, REFINED)
    held = {f"{x}/{name}": size for x in layers for name, size in sizes(dest / x).items()}
    by_size: dict[tuple[int, int], list[PairTask]] = {}

    def look(pair: Pair) -> tuple[PairTask, tuple[int, int] | str]:
        try:
            task = PairTask(pair, hash_files(pair))
        except InputError as error:
            return PairTask(pair, {}), str(error)
        current = _is_current(records.get(pair.stem), task.files, held, settings)
        task = PairTask(pair, task.files, needed=not current)
        try:
            size = images.read_size(pair.image)
            find_placement(size, settings.canvas, str(pair.image))
        except InputError as error:
            return task, str(error)
        return task, size

    with ThreadPoolExecutor() as pool:
        for task, outcome in pool.map(look, pairs):
            if isinstance(outcome, str):
                unreadable.append(rejected(task, outcome, settings))
            else:
                by_size.setdefault(outcome, []).append(task)
    step = settings.batch
    batches = [
        tasks[first : first + step]
        for tasks in by_size.values()
        for first in range(0, len(tasks), step)
    ]
    return [batch for batch in batches if any(task.needed for task in batch)], unreadable


def _is_current(
    record: Record | None, files: dict[str, File], held: dict[str, int], settings: BuildSettings
) -> bool:
    """Whether the pair was built from these bytes with these settings and its files are there."""
    return (
        record is not None
        and record.status == "built"
        and record.recipe == settings.key
        and all(record.sources[name].sha256 == file.sha256 for name, file in files.items())
        and all(held.get(file.path) == file.size for file in record.outputs.values())
    )

"""The job: a data set of photographs and masks goes in, its high-quality version comes out.

    plan the batches -> read, upscale, place, refine, predict, judge, write each pair -> record it

Killed at any moment and started again, it does what is missing and ends with the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqsod.building.engines import Engine
from hqsod.building.home import open_home
from hqsod.building.pending import Plan, make_plan, require_leave
from hqsod.dataset import card
from hqsod.dataset.manifest import Manifest, Record
from hqsod.dataset.refining_changes import Refining, summarise
from hqsod.pairs import Pair
from hqsod.progress import note, progress_bar


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        built: pairs built in this run.
        replaced: of these, pairs that had been built before, from other files or otherwise.
        kept: pairs that were up to date.
        rejected: stems of the pairs that could not be built.
        flagged: stems in the data set whose refined mask a person should look at.
        refining: what refining did to the masks in the data set; None without a refiner.
        left: stems in the data set that are no longer among the pairs; they stay as they are.
        card: the data set's README.
        sheet: its contact sheet.
    """

    built: int
    replaced: int
    kept: int
    rejected: tuple[str, ...]
    flagged: tuple[str, ...]
    refining: Refining | None
    left: tuple[str, ...]
    card: Path
    sheet: Path


def build(
    pairs: Sequence[Pair], dest: Path, engine: Engine, *, replace: bool = False, add: bool = False
) -> Summary:
    """Build a data set at `dest`, a folder or an address, or bring it up to date.

    Args:
        pairs: what to build from.
        dest: where the data set is, or will be.
        engine: what builds it.
        replace: whether pairs that were built with other settings, or from another source's files,
            may be built again.
        add: whether these pairs may join those of another source.

    Raises:
        OutputError: `dest` cannot be written to, or another run is at work there.
        SettingsError: `dest` would change in a way that was not asked for.
    """
    settings = engine.settings
    with open_home(dest) as home, Manifest.open(home.folder, create=True) as manifest:
        plan = make_plan(pairs, manifest.latest(), dest, settings)
        require_leave(plan, manifest, dest, settings, replace=replace, add=add)
        manifest.add_recipe(settings.key, settings.as_dict())
        failed: list[str] = []
        with progress_bar(len(plan.to_build), "building") as bar:
            for record in plan.unreadable:
                _account(record, manifest, failed)
            for record in engine.run(plan.batches, dest):
                _account(record, manifest, failed)
                bar.advance()
                home.save()
        records = [record for record in manifest.latest().values() if record.status == "built"]
        card_path, sheet = card.write(dest, manifest)
    return _summary(pairs, plan, records, failed, card_path, sheet)


def _account(record: Record, manifest: Manifest, failed: list[str]) -> None:
    manifest.append(record)
    if record.status == "rejected":
        failed.append(record.stem)
        note(f"rejected: {record.notes}")
    elif record.notes:
        note(f"converted: {record.notes}")


def _summary(
    pairs: Sequence[Pair],
    plan: Plan,
    records: Sequence[Record],
    failed: Sequence[str],
    card_path: Path,
    sheet: Path,
) -> Summary:
    built = len(plan.to_build) + len(plan.unreadable) - len(failed)
    before = {task.pair.stem for task in plan.to_build if task.pair.stem in plan.earlier}
    return Summary(
        built=built,
        replaced=len(before - set(failed)),
        kept=len(pairs) - built - len(failed),
        rejected=tuple(failed),
        flagged=tuple(record.stem for record in records if record.flagged),
        refining=summarise(records),
        left=tuple(sorted({record.stem for record in records} - {pair.stem for pair in pairs})),
        card=card_path,
        sheet=sheet,
    )

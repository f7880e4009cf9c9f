"""The job: a data set of photographs and masks goes in, its high-quality version comes out.

    plan the batches -> read, upscale, place, refine, predict, judge, write each pair -> record it

Killed at any moment and started again, it does what is missing and ends with the same images.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from hqsod.addresses import is_remote, real, sizes
from hqsod.building.engines import Engine
from hqsod.building.home import open_home
from hqsod.building.pending import Plan, make_plan, require_leave
from hqsod.dataset import card
from hqsod.dataset.folders import LAYERS
from hqsod.dataset.manifest import Manifest, Record
from hqsod.dataset.refining_changes import Refining, summarise
from hqsod.errors import OutputError
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
        left: stems in the data set that are not among the pairs; they stay as they are.
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
        OutputError: `dest` cannot be written to, holds files that are not hqsod's, or another run
            is at work there.
        SettingsError: `dest` would change in a way that was not asked for.
    """
    settings = engine.settings
    with ExitStack() as stack:
        home = stack.enter_context(open_home(dest))
        _require_own(dest, pairs, known=home.has_manifest)
        manifest = stack.enter_context(Manifest.open(home.folder, create=True))
        plan = make_plan(pairs, manifest.latest(), dest, settings)
        require_leave(plan, manifest, dest, settings, replace=replace, add=add)
        manifest.add_recipe(settings.key, settings.as_dict())
        home.save_now()  # before the first file, so that it is known as hqsod's
        failed: list[str] = []
        with progress_bar(len(plan.to_build), "building") as bar:
            for record in plan.unreadable:
                _account(record, manifest, dest, failed, plan.earlier.get(record.stem))
            for record in engine.run(plan.batches, dest):
                _account(record, manifest, dest, failed, plan.earlier.get(record.stem))
                bar.advance()
                home.save()
        records = [record for record in manifest.latest().values() if record.status == "built"]
        card_path, sheet = card.write(dest, manifest)
    return _summary(pairs, plan, records, failed, card_path, sheet)


def _require_own(dest: Path, pairs: Sequence[Pair], *, known: bool) -> None:
    """Check that a build replaces nothing in `dest` but what hqsod built.

    Args:
        dest: where the data set is, or will be.
        pairs: what to build from.
        known: whether `dest` has a manifest.

    Raises:
        OutputError: it would.
    """
    layers = [dest / layer for layer in LAYERS]
    read = {real(path.parent) for pair in pairs for path in (pair.image, pair.mask)}
    if inside := next((layer for layer in layers if real(layer) in read), None):
        raise OutputError(
            f"{inside}: is read from and would be written to",
            expected="a folder for the data set apart from its source",
            fix="choose another folder",
        )
    taken = [name for name in (card.CARD, card.SHEET) if name in sizes(dest)]
    taken += [f"{layer.name}/{name}" for layer in layers for name in sizes(layer)]
    if taken and not known:
        raise OutputError(
            f"{dest}: holds {taken[0]} and no manifest",
            expected="a data set that hqsod built, or a folder without such files",
            fix="choose another folder",
        )


def _account(
    record: Record, manifest: Manifest, dest: Path, failed: list[str], earlier: Record | None
) -> None:
    """Record a pair. One that was built before and cannot be now is told, and stays as it was."""
    if record.status == "built" or earlier is None:
        manifest.append(record)
    if record.status == "rejected":
        failed.append(record.stem)
        note(f"rejected: {record.notes}")
        return
    if record.notes:
        note(f"converted: {record.notes}")
    if earlier is not None:
        _remove_layers(dest, record.stem, earlier.outputs.keys() - record.outputs.keys())


def _remove_layers(dest: Path, stem: str, layers: Set[str]) -> None:
    """Remove what a pair no longer has: who reads the folders would take old masks for its own."""
    for folder in (dest / layer for layer in LAYERS if layer in layers):
        (folder / f"{stem}.png").unlink(missing_ok=True)
        if not is_remote(folder):
            with suppress(OSError):  # it holds others
                folder.rmdir()


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

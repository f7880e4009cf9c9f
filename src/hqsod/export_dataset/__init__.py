"""The job: a built data set in a format that people train from or annotate with.

A shard has its name only once it is whole, and `export.json` says what it was made from: run again
after a kill or a change, the job makes the shards that are missing or differ. It removes nothing
but shards, by the names that the format itself gives them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hqsod.addresses import sweep, write_bytes
from hqsod.dataset.folders import own_path
from hqsod.dataset.holdout import split
from hqsod.dataset.lock import sole_run
from hqsod.dataset.manifest import Manifest
from hqsod.errors import InputError, OutputError, SettingsError
from hqsod.export_dataset.card import write_card
from hqsod.export_dataset.formats import FORMATS, TRAIN, VALIDATION, Format
from hqsod.export_dataset.items import Item, find_items
from hqsod.progress import progress_bar

PAIRS_IN_SHARD = 250  # about half a gigabyte of 1600 x 1600 pairs
VALIDATION_SHARE = 0.05  # what `hqsod train` holds out by itself
STATE = "export.json"


@dataclass(frozen=True, slots=True)
class State:
    """What a folder holds.

    Attributes:
        format: of the export.
        shards: the finished ones, with their digests.
        data_set: the identity of the one it is of; empty where an earlier version did not say.
    """

    format: str
    shards: dict[str, str]
    data_set: str = ""


_STATE = TypeAdapter(State)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a run did.

    Attributes:
        folder: where the export stands.
        pairs: pairs in each split.
        shards: shards in it.
        written: shards written in this run.
        masks: which masks were taken, in words.
        stale: final masks that are not what the decisions say today.
        failed: one line for each pair left out because of a file that is missing, damaged or not
            the one recorded.
    """

    folder: Path
    pairs: dict[str, int]
    shards: int
    written: int
    masks: str
    stale: int
    failed: tuple[str, ...]


def export_dataset(
    dest: Path,
    form: str,
    folder: Path | None = None,
    pairs_in_shard: int = PAIRS_IN_SHARD,
    validation: float = VALIDATION_SHARE,
) -> Exported:
    """Export the data set in `dest`, or bring its export up to date.

    Args:
        dest: a data set with a manifest.
        form: one of `FORMATS`.
        folder: where the export goes; `dest/exports/FORM` where None.
        pairs_in_shard: pairs in each shard, the last one excepted.
        validation: share of the pairs in the validation split; their names decide which.

    Raises:
        SettingsError: no such format, or a package for it is missing.
        InputError: there is no manifest, or nothing to export.
        OutputError: the folder cannot be written to or holds something else, or another job is at
            work on the data set.
    """
    if form not in FORMATS:
        raise SettingsError(f"--format {form}", expected=", ".join(FORMATS))
    if folder is None:
        folder = own_path(dest, f"exports/{form}")
    # Nothing changes in a data set that cannot be written to, and it has no place for a lock. What
    # is no data set is refused before a lock is left there.
    lock = sole_run(dest) if os.access(dest, os.W_OK) else nullcontext()
    with Manifest.open(dest) as manifest, lock:
        state = _open_state(folder, form, manifest.identity())
        items = find_items(dest, decode=FORMATS[form].reads_masks)
        splits = _split(items.found, validation)
        planned: dict[str, Sequence[Item]] = {}
        for name, content in splits.items():
            planned |= FORMATS[form].plan(name, content, pairs_in_shard)
        gone = state.shards.keys() - planned.keys()
        for shard in gone:
            del state.shards[shard]
        _save_state(folder, state)  # what is about to be removed is no longer vouched for
        _remove(folder, gone)
        written = _write_shards(folder, state, planned)
        counts = {name: len(content) for name, content in splits.items()}
        write_card(folder, dest, form, counts, items.masks)
    return Exported(folder, counts, len(planned), written, items.masks, items.stale, items.failed)


def _split(items: Sequence[Item], validation: float) -> dict[str, list[Item]]:
    """The pairs of each split that has some."""
    train, held_out = split(items, validation)
    splits = {TRAIN: train, VALIDATION: held_out}
    return {name: content for name, content in splits.items() if content}


def _write_shards(folder: Path, state: State, planned: dict[str, Sequence[Item]]) -> int:
    """Write the shards that are missing or differ; returns how many these were."""
    shards, written = state.shards, 0
    with progress_bar(len(planned), f"exporting {state.format}", "shards") as bar:
        for shard, content in planned.items():
            digest = hashlib.sha256("".join(item.digest for item in content).encode()).hexdigest()
            if shards.get(shard) != digest or not (folder / shard).exists():
                if shards.pop(shard, None):
                    _save_state(folder, state)
                _write_whole(folder, shard, content, FORMATS[state.format])
                shards[shard] = digest
                _save_state(folder, state)
                written += 1
            bar.advance()
    return written


def _open_state(folder: Path, form: str, data_set: str) -> State:
    """What an earlier run left in the folder."""
    sweep(folder, age=0)  # what a kill left of the state
    if not (folder / STATE).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(
                f"{folder}: holds other files",
                expected="an empty folder",
                fix="choose another folder",
            )
        _save_state(folder, state := State(form, {}, data_set))
        return state
    state = _read_state(folder / STATE)
    if state.format != form:
        raise OutputError(
            f"{folder}: holds {state.format}", expected=form, fix="choose another folder"
        )
    if state.data_set not in ("", data_set):
        raise OutputError(
            f"{folder}: holds an export of another data set",
            expected="one of this data set, or an empty folder",
            fix="choose another folder",
        )
    return replace(state, data_set=data_set)


def _read_state(path: Path) -> State:
    try:
        state = _STATE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise OutputError(
            f"{path}: cannot be read",
            expected="the list of an export's shards",
            fix="choose another folder",
        ) from error
    form = FORMATS.get(state.format)
    for shard in state.shards:  # a stranger may have named it, and what is named here is removed
        if form and not form.names(shard):
            raise OutputError(
                f"{path}: names {shard}",
                expected=f"shards such as {form.shard.format(split=TRAIN, number=0)}",
                fix="choose another folder",
            )
    return state


def _save_state(folder: Path, state: State) -> None:
    text = json.dumps(asdict(state), indent=1, sort_keys=True)
    write_bytes(folder / STATE, text.encode())


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove shards, or what a kill left of them."""
    for name in names:
        path = own_path(folder, name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_whole(folder: Path, shard: str, items: Sequence[Item], form: Format) -> None:
    """Write a shard under another name, then give it its own."""
    path = folder / shard
    part = path.with_name(f".{path.name}.part")
    unfinished = [str(part.relative_to(folder))]
    try:
        _remove(folder, unfinished)
        path.parent.mkdir(parents=True, exist_ok=True)
        form.write(part, items)
        _remove(folder, [shard])
        part.rename(path)
    except (OSError, InputError) as error:
        with suppress(OSError):  # what failed first is the message that counts
            _remove(folder, unfinished)
        if isinstance(error, InputError):
            raise
        raise OutputError(
            f"{path}: {error.strerror or error}", fix="free space, then run the same command again"
        ) from error

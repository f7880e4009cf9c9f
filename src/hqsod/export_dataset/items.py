"""What is exported: the pairs of a built data set, each with the mask that counts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hqsod import images
from hqsod.addresses import read_bytes, require_file
from hqsod.dataset.decisions import (
    BUILT_NAMES,
    Decision,
    Decisions,
    chosen,
    version_file,
    version_path,
    versions,
)
from hqsod.dataset.folders import FINAL_FOLDER, IMAGES, REFINED, own_path
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.errors import InputError, OutputError


@dataclass(frozen=True, slots=True)
class Item:
    """A pair as it is exported: its files and what is said of it."""

    stem: str
    image: Path
    mask: Path
    digest: str  # of everything that the exported bytes follow from
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Items:
    """What a data set has to export.

    Attributes:
        found: the pairs, sorted by stem.
        masks: which masks were taken, in words.
        stale: final masks that are not what the decisions say today.
        failed: one line for each pair left out because a file is missing.
    """

    found: tuple[Item, ...]
    masks: str
    stale: int
    failed: tuple[str, ...]


def find_items(dest: Path) -> Items:
    """The pairs to export: with the final masks if there are any, else with `_undecided`.

    Raises:
        InputError: there is no manifest, or nothing to export.
    """
    with Manifest.open(dest) as manifest, Decisions.open(dest) as decisions:
        records = [record for record in manifest.latest().values() if record.status == "built"]
        latest = decisions.latest()
    final = own_path(dest, FINAL_FOLDER).is_dir()
    found, failed, stale = [], [], 0
    for record in records:
        try:
            if final:
                version, mask = _final(dest, record, latest.get(record.stem))
            else:
                version = _undecided(record)
                mask = dest / version_path(record, version)
            if mask is None:
                stale += int(version is not None)
                continue
            item, as_decided = _item(dest, record, mask, version)
        except OSError as error:
            failed.append(f"{record.stem}: {error.filename}: {error.strerror}")
            continue
        except (InputError, OutputError) as error:  # such as a link, which may lead elsewhere
            failed.append(f"{record.stem}: {error}")
            continue
        found.append(item)
        stale += int(final and not as_decided)
    if not found:
        why = f": {failed[0]}" if failed else ""
        raise InputError(
            f"{dest}: nothing to export{why}",
            expected="built pairs with masks",
            fix="build it first",
        )
    meaning = "final masks" if final else "the refined ones or else the first, decisions left aside"
    return Items(tuple(found), meaning, stale, tuple(failed))


def _undecided(record: Record) -> str:
    """The refined version, or the first: a linked folder's own masks, never a candidate."""
    names, refined = versions(record), BUILT_NAMES[REFINED]
    return refined if refined in names else next(iter(names))


def _final(dest: Path, record: Record, decision: Decision | None) -> tuple[str | None, Path | None]:
    """The version decided on, and the final mask if there is one."""
    mask = own_path(dest, f"{FINAL_FOLDER}/{record.stem}.png")
    return chosen(record, decision), mask if mask.is_file() else None


def _item(dest: Path, record: Record, mask: Path, version: str | None) -> tuple[Item, bool]:
    """The pair as exported, and whether its mask is the version decided on."""
    image = dest / record.outputs[IMAGES].path
    image.stat()  # a missing file is told now, not in the middle of a shard
    require_file(image)
    if image.parent.is_symlink():
        _require_known(image, hashlib.sha256(read_bytes(image)).hexdigest(), record.outputs[IMAGES])
    digest = hashlib.sha256(read_bytes(mask)).hexdigest()
    known: dict[str, File] = {path.path: path for path in record.outputs.values()}
    source = known.get(version_path(record, version)) if version else None
    if mask.parent.is_symlink():
        _require_known(mask, digest, source)
    is_recorded = source is not None and source.sha256 == digest
    as_decided = is_recorded or (version is not None and _same(dest, record, version, mask))
    about = {
        "stem": record.stem,
        "version": version or "",
        "trust": record.score,
        "flagged": record.flagged,
    }
    told = json.dumps([record.outputs[IMAGES].sha256, digest, about])
    return Item(record.stem, image, mask, told, about), as_decided


def _same(dest: Path, record: Record, version: str, mask: Path) -> bool:
    """Whether a final mask is this version to the pixel; apply may have compressed it anew."""
    try:
        source = images.read_map(version_file(dest, record, version))
        return np.array_equal(source, images.read_map(mask))
    except InputError:  # apply would not take it either
        return False


def _require_known(path: Path, digest: str, recorded: File | None) -> None:
    """Check that a file behind a linked folder is the one that was recorded.

    Whoever made the data set chose where the link leads: without this an export would carry away
    any file of the user's, by its name.

    Raises:
        InputError: it is another.
    """
    if recorded is None or recorded.sha256 != digest:
        raise InputError(
            f"{path}: not the file that the manifest tells of",
            expected="the same bytes",
            fix="run hqsod review with --images and --masks again if you changed it",
        )

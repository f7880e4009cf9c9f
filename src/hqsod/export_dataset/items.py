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
        failed: one line for each pair left out because of a file that is missing, damaged or not
            the one recorded.
    """

    found: tuple[Item, ...]
    masks: str
    stale: int
    failed: tuple[str, ...]


def find_items(dest: Path, *, decode: bool = False) -> Items:
    """The pairs to export: with the final masks if there are any, else with `_undecided`.

    Args:
        dest: the data set.
        decode: whether every mask must be one that can be read; otherwise those must whose bytes
            are not recorded.

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
            item, as_decided = _item(dest, record, mask, version, decode=decode)
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


def _item(
    dest: Path, record: Record, mask: Path, version: str | None, *, decode: bool
) -> tuple[Item, bool]:
    """The pair as exported, and whether its mask is the version decided on."""
    recorded = record.outputs[IMAGES]
    image = dest / recorded.path
    image.stat()  # a missing file is told now, not in the middle of a shard
    require_file(image)
    _require_known(image, recorded, _digest(image) if _is_linked(dest, recorded.path) else None)
    digest = _digest(mask)
    known: dict[str, File] = {file.path: file for file in record.outputs.values()}
    source = known.get(version_path(record, version)) if version else None
    if source is not None and mask == dest / source.path:
        _require_known(mask, source, digest)
    if decode or digest not in {file.sha256 for file in known.values()}:
        images.read_mask(mask)
    is_recorded = source is not None and source.sha256 == digest
    as_decided = is_recorded or (version is not None and _same(dest, record, version, mask))
    about = {
        "stem": record.stem,
        "version": version or "",
        "trust": record.score,
        "flagged": record.flagged,
    }
    told = json.dumps([recorded.sha256, digest, about])
    return Item(record.stem, image, mask, told, about), as_decided


def _same(dest: Path, record: Record, version: str, mask: Path) -> bool:
    """Whether a final mask is this version to the pixel; apply may have compressed it anew."""
    try:
        source = images.read_map(version_file(dest, record, version))
        return np.array_equal(source, images.read_map(mask))
    except InputError:  # apply would not take it either
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _is_linked(dest: Path, name: str) -> bool:
    """Whether a part of the name is a link, wherever in the data set it stands."""
    path = dest / name
    return any(part.is_symlink() for part in (path, *path.parents[: len(Path(name).parts) - 1]))


def _require_known(path: Path, recorded: File, digest: str | None) -> None:
    """Check that a file is the one that was recorded: by its length, and by its digest if given.

    Whoever made the data set chose where its links lead: without the digest an export would carry
    away any file of the user's, by its name.

    Raises:
        InputError: it is another.
    """
    if path.stat().st_size != recorded.size or digest not in (None, recorded.sha256):
        raise InputError(
            f"{path}: not the file that the manifest tells of",
            expected="the same bytes",
            fix="build it again; of linked folders, run hqsod review with --images and --masks "
            "again if you changed it",
        )

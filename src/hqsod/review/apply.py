"""The job: what people decided becomes `final-masks/`, one PNG for each pair that stays.

Run again after a kill or a changed decision, it writes what differs, removes what no longer counts,
and leaves the rest alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqsod import addresses, encoding, images
from hqsod.dataset import card
from hqsod.dataset.decisions import (
    CORRECTED,
    Decisions,
    chosen,
    is_painted,
    version_file,
    version_path,
)
from hqsod.dataset.folders import CORRECTED_FOLDER, FINAL_FOLDER, IMAGES, own_path
from hqsod.dataset.lock import sole_run
from hqsod.dataset.manifest import Manifest, Record
from hqsod.errors import InputError, OutputError
from hqsod.progress import progress_bar

PNG = b"\x89PNG\r\n\x1a\n"  # what every such file begins with


@dataclass(frozen=True, slots=True)
class Applied:
    """What a run did.

    Attributes:
        counts: how many final masks there are of each version.
        left_out: stems of the pairs rejected by a person.
        written: files written in this run.
        removed: files removed in this run.
        failed: one line for each pair whose mask cannot be read, or is not the one that was
            recorded or fits its image; its final mask is gone.
    """

    counts: dict[str, int]
    left_out: tuple[str, ...]
    written: int
    removed: int
    failed: tuple[str, ...]


def apply(dest: Path) -> Applied:
    """Write `final-masks/` of the data set in `dest` and bring its card up to date.

    Raises:
        InputError: there is no manifest.
        OutputError: the folder cannot be written to, it or that of painted masks is a link, or
            another job is at work there.
    """
    with Manifest.open(dest) as manifest, Decisions.open(dest) as decisions, sole_run(dest):
        own_path(dest, CORRECTED_FOLDER)
        folder = _make(own_path(dest, FINAL_FOLDER))
        records, latest = manifest.latest(), decisions.latest()
        built = [record for record in records.values() if record.status == "built"]
        choices = {record.stem: chosen(record, latest.get(record.stem)) for record in built}
        kept: dict[str, str] = {}
        failed, written = [], 0
        with progress_bar(len(built), "applying", "pairs") as bar:
            for record in built:
                bar.advance()
                version = choices[record.stem]
                if version is None:
                    continue
                try:
                    mask = _final_mask(dest, record, version)
                    written += _write(mask, folder / f"{record.stem}.png")
                    kept[record.stem] = CORRECTED if is_painted(version) else version
                except InputError as error:
                    failed.append(str(error))
        removed = _remove(folder, [stem for stem in records if stem not in kept])
        if card.is_ours(dest):
            card.write(dest, manifest)
    return Applied(
        counts=dict(Counter(kept.values())),
        left_out=tuple(stem for stem, version in choices.items() if version is None),
        written=written,
        removed=removed,
        failed=tuple(failed),
    )


def _make(folder: Path) -> Path:
    """Make the folder even where all pairs are rejected: that it is there says who decided."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}", expected="a folder") from error
    return folder


def _final_mask(dest: Path, record: Record, version: str) -> bytes:
    """A version of a pair's mask as a PNG.

    Raises:
        InputError: it is no mask that can be read, not the one that was recorded (whoever made the
            data set chose where its links lead), or was painted on an image of another size.
    """
    source = version_file(dest, record, version)
    mask = images.load_map(source)  # whatever is not a mask is not copied
    data = addresses.read_bytes(source)
    recorded = {file.path: file.sha256 for file in record.outputs.values()}
    if is_painted(version):
        size = images.read_size(dest / record.outputs[IMAGES].path)
        if mask.pixels.shape != size:
            raise InputError(
                f"{source}: a corrected mask of {mask.pixels.shape}",
                expected=f"the image's size {size}",
                fix="decide on it again",
            )
    elif hashlib.sha256(data).hexdigest() != recorded[version_path(record, version)]:
        raise InputError(
            f"{source}: not the file that the manifest tells of",
            expected="the same bytes",
            fix="build it again, or run hqsod review with --images and --masks again",
        )
    if not data.startswith(PNG) or mask.notes or mask.orientation != 1:
        return encoding.encode_png(mask.pixels)
    return data


def _write(data: bytes, target: Path) -> bool:
    """Write a pair's final mask where it differs; whether it did."""
    if target.is_file() and addresses.read_bytes(target) == data:
        return False
    addresses.write_bytes(target, data)
    return True


def _remove(folder: Path, stems: Sequence[str]) -> int:
    """Remove masks that no longer count, and what a kill left half written."""
    addresses.sweep(folder, age=0)
    paths = [path for stem in stems if (path := folder / f"{stem}.png").is_file()]
    for path in paths:
        path.unlink()
    return len(paths)

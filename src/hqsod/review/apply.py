"""The job: what people decided becomes `final-masks/`, one PNG for each pair that stays.

Run again after a kill or a changed decision, it writes what differs, removes what no longer counts,
and leaves the rest alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hqsod import images
from hqsod.addresses import write_bytes
from hqsod.dataset import card
from hqsod.dataset.decisions import CORRECTED, Decisions, chosen, version_path
from hqsod.dataset.folders import FINAL_FOLDER
from hqsod.dataset.manifest import Manifest, Record
from hqsod.errors import InputError
from hqsod.progress import progress_bar


@dataclass(frozen=True, slots=True)
class Applied:
    """What a run did.

    Attributes:
        counts: how many final masks there are of each version.
        left_out: stems of the pairs rejected by a person.
        written: files written in this run.
        removed: files removed in this run.
        failed: one line for each pair whose mask could not be read; its final mask is gone.
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
        OutputError: the folder cannot be written to.
    """
    with Manifest.open(dest) as manifest, Decisions.open(dest) as decisions:
        records = [record for record in manifest.latest().values() if record.status == "built"]
        latest = decisions.latest()
        choices = {record.stem: chosen(record, latest.get(record.stem)) for record in records}
        kept, failed, written = set(), [], 0
        with progress_bar(len(records), "applying", "pairs") as bar:
            for record in records:
                bar.advance()
                name = choices[record.stem]
                if name is None:
                    continue
                try:
                    written += _write(dest, record, name)
                    kept.add(f"{record.stem}.png")
                except InputError as error:
                    failed.append(str(error))
        removed = _remove_others(dest / FINAL_FOLDER, kept)
        if (dest / "README.md").is_file():
            card.write(dest, manifest)
    return Applied(
        counts=dict(Counter(choices[Path(name).stem] or "" for name in kept)),
        left_out=tuple(stem for stem, name in choices.items() if name is None),
        written=written,
        removed=removed,
        failed=tuple(failed),
    )


def _write(dest: Path, record: Record, version: str) -> bool:
    """Write a pair's final mask where it differs; whether it did.

    Raises:
        InputError: the mask cannot be read.
    """
    source, target = (
        dest / version_path(record, version),
        dest / FINAL_FOLDER / f"{record.stem}.png",
    )
    if version != CORRECTED and source.parent.is_symlink():  # a linked folder: any kind of file
        data = images.encode_png(images.read_map(source))
    else:
        data = _read(source)
    if target.is_file() and target.read_bytes() == data:
        return False
    write_bytes(target, data)
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}", expected="a mask", fix="build the pair again"
        ) from error


def _remove_others(folder: Path, kept: set[str]) -> int:
    """Remove masks that no longer count, and what a kill left half written."""
    others = [path for path in folder.glob("*.png") if path.name not in kept]
    for path in [*others, *folder.glob(".*.part")]:
        path.unlink()
    return sum(not path.name.startswith(".") for path in others)

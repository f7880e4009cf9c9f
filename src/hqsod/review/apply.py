"""The job: what people decided becomes `final-masks/`, one PNG for each pair that stays.

Run again after a kill or a changed decision, it writes what differs, removes what no longer counts,
and leaves the rest alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqsod import addresses, encoding, images
from hqsod.dataset import card
from hqsod.dataset.decisions import CORRECTED, Decisions, chosen, is_painted, version_file
from hqsod.dataset.folders import FINAL_FOLDER, own_path
from hqsod.dataset.lock import sole_run
from hqsod.dataset.manifest import Manifest
from hqsod.errors import InputError
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
        OutputError: the folder cannot be written to or is a link, or another job is at work there.
    """
    with Manifest.open(dest) as manifest, Decisions.open(dest) as decisions, sole_run(dest):
        folder = own_path(dest, FINAL_FOLDER)
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
                    source = version_file(dest, record, version)
                    written += _write(source, folder / f"{record.stem}.png")
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


def _write(source: Path, target: Path) -> bool:
    """Write a pair's final mask where it differs; whether it did.

    Raises:
        InputError: the source is no mask that can be read.
    """
    mask = images.load_map(source)  # whatever is not a mask is not copied
    data = addresses.read_bytes(source)
    if not data.startswith(PNG) or mask.notes or mask.orientation != 1:
        data = encoding.encode_png(mask.pixels)
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

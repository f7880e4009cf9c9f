"""Any folders of photographs and masks as a data set that can be reviewed.

The folders stay where they are and as they are: the data set holds links to them, and a manifest
with a record of each pair, judged as a build would judge it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from hqsod import addresses, images
from hqsod.dataset.decisions import BUILT_NAMES, CORRECTED, LATER, REJECT, is_painted
from hqsod.dataset.folders import CORRECTED_FOLDER, FINAL_FOLDER, IMAGES, MASKS, REFINED
from hqsod.dataset.layouts import inspect, masks_by_stem
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.errors import InputError, OutputError
from hqsod.masks import binarise
from hqsod.metrics.regions import mask_iou
from hqsod.pairs import Pair, match_pair, require_utf8
from hqsod.progress import progress_bar
from hqsod.quality.judge import judge
from hqsod.review.data_set import PICTURE

RECIPE = "linked folders"
GONE = "its photograph or its mask is gone"
SETTINGS = {"recipe": RECIPE, "upscaler": "none", "refiner": "none"}
TAKEN = frozenset(
    {IMAGES, MASKS, REFINED, FINAL_FOLDER, CORRECTED_FOLDER, "exports", PICTURE}
    | {*BUILT_NAMES.values(), CORRECTED, REJECT, LATER}
)


def link(
    dest: Path, photographs: Path, masks: Path, candidates: Mapping[str, Path]
) -> tuple[str, ...]:
    """Make or bring up to date the data set in `dest` that links to the folders.

    Args:
        dest: where links, manifest and later the decisions stand.
        photographs: folder of the photographs.
        masks: folder of the masks.
        candidates: further versions of the masks, by name; how far the masks and the first of
            them overlap is a figure of its own.

    Returns:
        One line for each pair that could not be read, or is gone.

    Raises:
        InputError: a folder is missing, a name is taken, no photograph has a mask, or candidates
            that `dest` has are not named again.
        OutputError: `dest` cannot be written to or holds something else.
    """
    for name in candidates:
        _require_new_name(name)
    found = inspect(Path(), str(photographs.absolute()), str(masks.absolute()))
    if not found.pairs:
        raise InputError(f"{photographs}, {masks}: no image with a mask of the same name")
    work = {pair.stem: {IMAGES: pair.image, MASKS: pair.mask} for pair in found.pairs}
    for name, folder in candidates.items():
        of_image = masks_by_stem(images.find_images(folder), work)[0]
        if not work.keys() & of_image:
            raise InputError(f"--candidates {name}={folder}: no mask of the same name as another")
        for stem in work.keys() & of_image:
            work[stem][name] = of_image[stem]
    _link_all(dest, {IMAGES: photographs, MASKS: masks, **candidates})
    return _record_all(dest, work)


def _require_new_name(name: str) -> None:
    if name in TAKEN or is_painted(name) or not re.fullmatch(r"[\w-]+", name):
        raise InputError(
            f"--candidates {name}=...",
            expected="a new name of letters, digits, - and _",
            fix="rename it",
        )


def _link_all(dest: Path, folders: Mapping[str, Path]) -> None:
    """Link to all folders, or to none where one does not fit what is there."""
    others = {path.name: path for path in dest.glob("*") if path.is_symlink() and path.is_dir()}
    for name in others.keys() - folders.keys() - TAKEN:  # without it all would be undecided again
        raise InputError(
            f"{dest}: has candidates {name}, which are not named",
            expected=f"--candidates {name}={others[name].resolve()}",
            fix=f"name them too, or remove {others[name]}",
        )
    for name, folder in folders.items():
        _require_free(dest / name, folder)
    try:
        dest.mkdir(parents=True, exist_ok=True)
        for name, folder in folders.items():
            if not (dest / name).is_symlink():
                (dest / name).symlink_to(folder.resolve(), target_is_directory=True)
    except OSError as error:
        raise OutputError(
            f"{dest}: {error.strerror}",
            expected="a folder that can be written to",
            fix="name another folder for the decisions",
        ) from error


def _require_free(link: Path, folder: Path) -> None:
    if not link.exists() and not link.is_symlink():
        return
    if not link.is_symlink() or link.resolve() != folder.resolve():
        raise OutputError(
            f"{link}: already leads to {link.resolve()}",
            expected=f"nothing, or a link to {folder.resolve()}",
            fix="name another folder for the decisions",
        )


def _record_all(dest: Path, work: Mapping[str, Mapping[str, Path]]) -> tuple[str, ...]:
    failed = []
    key = hashlib.sha256(RECIPE.encode()).hexdigest()
    with (
        Manifest.open(dest, create=True) as manifest,
        ThreadPoolExecutor() as pool,
        progress_bar(len(work), "judging", "pairs") as bar,
    ):
        manifest.add_recipe(key, SETTINGS)
        known = manifest.latest()
        gone = [stem for stem in known.keys() - work if known[stem].status == "built"]
        found = pool.map(lambda stem: _record(stem, work[stem], known.get(stem), key), work)
        for record in chain((_rejected(stem, key, GONE) for stem in sorted(gone)), found):
            bar.advance()
            if record is None:
                continue
            manifest.append(record)
            if record.status == "rejected":
                failed.append(f"{record.stem}: {record.notes}")
    return tuple(failed)


def _record(stem: str, files: Mapping[str, Path], known: Record | None, key: str) -> Record | None:
    """Judge a pair; None where the manifest's record of it still holds."""
    try:
        outputs = {name: _file(name, path) for name, path in files.items()}
        if known is not None and known.status == "built" and known.outputs == outputs:
            return None
        require_utf8(Pair(stem, files[IMAGES], files[MASKS]))
        photograph = images.load_image(files[IMAGES])
        masks = [
            match_pair(Pair(stem, files[IMAGES], path), photograph, images.load_mask(path))
            for name, path in files.items()
            if name != IMAGES
        ]
    except InputError as error:
        return _rejected(stem, key, str(error))
    first, *others = [pair.mask for pair in masks]
    quality = judge(photograph.pixels, first, first)
    refining = {"iou", "mended", "redrawn"}  # nothing was refined
    figures = {name: x for name, x in quality.as_dict().items() if name not in refining}
    if others:
        figures["candidate_iou"] = mask_iou(binarise(first), binarise(others[0]))
    return Record(
        stem=stem,
        status="built",
        recipe=key,
        sources={"image": outputs[IMAGES], "mask": outputs[MASKS]},
        outputs=outputs,
        quality=figures,
        score=quality.score,
        flagged=quality.flagged,
    )


def _rejected(stem: str, key: str, reason: str) -> Record:
    return Record(stem, "rejected", key, sources={}, notes=reason)


def _file(name: str, path: Path) -> File:
    """A file as the manifest tells of it.

    Raises:
        InputError: it cannot be read, or is a link that `require_path` would refuse.
    """
    if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
        raise InputError(
            f"{path}: a link that leads out of its folder", expected="a file", fix="copy it there"
        )
    data = addresses.read_bytes(path)
    return File(f"{name}/{path.name}", hashlib.sha256(data).hexdigest(), len(data))

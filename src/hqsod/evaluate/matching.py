"""Which map belongs to which ground truth: folders matched by stem before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hqsod.dataset import layouts
from hqsod.decoding import SUFFIXES
from hqsod.errors import InputError, SettingsError
from hqsod.evaluate.report import Unscored
from hqsod.images import find_images, find_others


@dataclass(frozen=True, slots=True)
class ScoringTask:
    """One map to score."""

    stem: str
    prediction: Path
    ground_truth: Path


@dataclass(frozen=True, slots=True)
class MatchedMaps:
    """One method's maps on one data set: what can be scored, and what cannot."""

    tasks: tuple[ScoringTask, ...]
    unscored: tuple[Unscored, ...]


@dataclass(frozen=True, slots=True)
class MatchedDataset:
    """One data set: its ground truths and photographs by stem, and every method's maps."""

    ground_truths: Mapping[str, Path]
    images: Mapping[str, Path]
    methods: Mapping[str, MatchedMaps]


def match_folders(
    predictions: Mapping[str, Path],
    ground_truths: Mapping[str, Path],
    images: Mapping[str, Path],
) -> dict[str, MatchedDataset]:
    """Match every method's maps with every data set's ground truths.

    Args, raises: as `hqsod.evaluate.evaluate`.
    """
    if unknown := images.keys() - ground_truths:
        raise SettingsError(
            f"photographs of {', '.join(sorted(unknown))}",
            expected=f"photographs of {' or '.join(ground_truths)}",
            fix="give them the names of the ground truths: DATASET=DIR",
        )
    found = {}
    for name, given in ground_truths.items():
        folder = ground_truth_folder(given)
        truths, unscored = _by_stem(folder, "ground truths")
        methods = {}
        for method, maps in predictions.items():
            inner = _maps_folder(maps, name, alone=len(ground_truths) == 1)
            methods[method] = _match(inner, folder, truths, unscored)
        photographs = _by_stem(images[name], "photographs")[0] if name in images else None
        found[name] = MatchedDataset(truths, photographs or _photographs(folder), methods)
    return found


def dataset_name(given: Path) -> str:
    """What a data set is called by its folder, or by that of its ground truths.

    Raises:
        InputError: as `ground_truth_folder`.
    """
    return _root(ground_truth_folder(given).resolve()).name


def ground_truth_folder(given: Path) -> Path:
    """The folder of ground truths: `given`, or the masks of the data set that `given` is.

    Raises:
        InputError: neither images nor a known layout in it, or photographs beside the masks.
    """
    images = find_images(given) if given.is_dir() else []
    if given.is_dir() and not images:
        return layouts.find_pairs(given)[0].mask.parent
    masks = {image.stem for image in images if image.suffix.lower() == ".png"}
    if any(i.stem in masks for i in images if i.suffix.lower() in (".jpg", ".jpeg")):
        raise InputError(
            f"{given}: photographs (.jpg) and masks (.png) in one folder",
            expected="ground truths alone",
            fix="move the masks to a folder of their own",
        )
    return given


def _match(
    folder: Path, truth_folder: Path, truths: dict[str, Path], unscored_truths: list[Unscored]
) -> MatchedMaps:
    maps, unscored_maps = _by_stem(folder, "saliency maps")
    tasks = [ScoringTask(stem, maps[stem], truth) for stem, truth in truths.items() if stem in maps]
    if not tasks:
        raise InputError(
            f"{folder}: no map has the name of a ground truth in {truth_folder}",
            expected="maps and ground truths of the same names",
            fix="check the two folders",
        )
    missing = [truth for stem, truth in truths.items() if stem not in maps]
    extra = [file for stem, file in maps.items() if stem not in truths]
    unscored = (
        *(Unscored("missing", file, "no map for this ground truth") for file in missing),
        *(Unscored("extra", file, "no ground truth for this map") for file in extra),
        *unscored_truths,
        *unscored_maps,
    )
    return MatchedMaps(tuple(tasks), unscored)


def _maps_folder(given: Path, dataset: str, alone: bool) -> Path:
    inner = given / dataset
    if inner.is_dir():
        return inner
    if alone:
        return given
    raise InputError(
        f"{given}: no folder {dataset} in it",
        expected="one folder of maps for each data set, named as the data set",
        fix="rename the folder, or name the data set with --gt NAME=DIR",
    )


def _by_stem(folder: Path, what: str) -> tuple[dict[str, Path], list[Unscored]]:
    """Images by stem, in order, and files named like images that cannot be scored."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", expected=f"a folder of {what}")
    first, doubled = layouts.masks_by_stem(find_images(folder))
    if not first:
        raise InputError(f"{folder}: no images in it", expected=f"a folder of {what}")
    unscored = [Unscored("ambiguous", file, "another file has this stem") for file in doubled]
    broken = (file for file in find_others(folder) if file.suffix.lower() in SUFFIXES)
    return first, unscored + [Unscored("unreadable", file, "a broken link") for file in broken]


def passed_over(matched: Mapping[str, MatchedDataset]) -> Iterator[str]:
    """What lies beside the files that are scored and is no image: a line for each folder."""
    folders: dict[Path, None] = {}
    for data in matched.values():
        folders[next(iter(data.ground_truths.values())).parent] = None
        folders |= {maps.tasks[0].prediction.parent: None for maps in data.methods.values()}
    for folder in folders:
        others = [file for file in find_others(folder) if file.suffix.lower() not in SUFFIXES]
        if others:
            kinds = ", ".join(sorted({file.suffix or file.name for file in others}))
            yield f"{folder}: {len(others)} other files passed over: {kinds}"


def _root(masks: Path) -> Path:
    """The data set that ground truths lie in: above as many folders as their layout has."""
    depths = (len(Path(lay.masks).parts) for lay in layouts.LAYOUTS if masks.match(lay.masks))
    return masks.parents[next(depths, 1) - 1]


def _photographs(masks: Path) -> dict[str, Path]:
    """Photographs by stem, where the masks are those of a layout we know; for the report alone."""
    try:
        found = layouts.inspect(_root(masks))
    except InputError:
        return {}
    return {p.stem: p.image for p in found.pairs if p.mask.parent.resolve() == masks.resolve()}

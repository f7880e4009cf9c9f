"""Which map belongs to which ground truth: folders matched by stem before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hqsod.dataset import layouts
from hqsod.errors import InputError
from hqsod.evaluate.report import Problem
from hqsod.images import find_images


@dataclass(frozen=True, slots=True)
class Task:
    """One map to score."""

    stem: str
    prediction: Path
    ground_truth: Path


@dataclass(frozen=True, slots=True)
class Matched:
    """One method's maps on one data set: what can be scored, and what cannot."""

    tasks: tuple[Task, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One data set: its ground truths and photographs by stem, and every method's maps."""

    ground_truths: Mapping[str, Path]
    images: Mapping[str, Path]
    methods: Mapping[str, Matched]


def plan(predictions: Mapping[str, Path], ground_truths: Mapping[str, Path]) -> dict[str, Plan]:
    """Match every method's maps with every data set's ground truths.

    Args, raises: as `hqsod.evaluate.evaluate`.
    """
    plans = {}
    for name, folder in ground_truths.items():
        truths, doubled = _by_stem(folder, "ground truths")
        methods = {}
        for method, given in predictions.items():
            maps_folder = _maps_folder(given, name, alone=len(ground_truths) == 1)
            maps, doubled_maps = _by_stem(maps_folder, "saliency maps")
            methods[method] = _match(maps, truths, doubled + doubled_maps)
            if not methods[method].tasks:
                raise InputError(
                    f"{maps_folder}: no map is named as a ground truth in {folder}",
                    expected="maps and ground truths of the same stems",
                    fix="check the two folders",
                )
        plans[name] = Plan(truths, _photographs(folder), methods)
    return plans


def ground_truth_folder(given: Path) -> Path:
    """The folder of ground truths: `given`, or the masks of the data set that `given` is.

    Raises:
        InputError: neither pictures nor a known layout in it, or photographs beside the masks.
    """
    pictures = find_images(given) if given.is_dir() else []
    if given.is_dir() and not pictures:
        return layouts.find_pairs(given)[0].mask.parent
    masks = {picture.stem for picture in pictures if picture.suffix.lower() == ".png"}
    if any(p.stem in masks for p in pictures if p.suffix.lower() in (".jpg", ".jpeg")):
        raise InputError(
            f"{given}: photographs (.jpg) and masks (.png) in one folder",
            expected="ground truths alone",
            fix="move the masks to a folder of their own",
        )
    return given


def _match(maps: dict[str, Path], truths: dict[str, Path], doubled: list[Path]) -> Matched:
    tasks = (Task(stem, maps[stem], truth) for stem, truth in truths.items() if stem in maps)
    missing = (
        Problem("missing", truth, "no map for this ground truth")
        for stem, truth in truths.items()
        if stem not in maps
    )
    extra = (
        Problem("extra", file, "no ground truth for this map")
        for stem, file in maps.items()
        if stem not in truths
    )
    twice = (Problem("ambiguous", file, "another file has this stem") for file in doubled)
    return Matched(tuple(tasks), (*missing, *extra, *twice))


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


def _by_stem(folder: Path, what: str) -> tuple[dict[str, Path], list[Path]]:
    """Pictures by stem, in order, and further files of a stem seen before."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", expected=f"a folder of {what}")
    files = find_images(folder)
    if not files:
        raise InputError(f"{folder}: no pictures in it", expected=f"a folder of {what}")
    first: dict[str, Path] = {}
    doubled = [file for file in files if first.setdefault(file.stem, file) != file]
    return first, doubled


def _photographs(masks: Path) -> dict[str, Path]:
    """Photographs by stem, where the folder above has a layout we know; for the report alone."""
    try:
        found = layouts.inspect(masks.parent)
    except InputError:
        return {}
    return {pair.stem: pair.image for pair in found.pairs}

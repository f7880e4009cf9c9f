"""Finding photographs and their masks in the layouts the field uses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hqsod.errors import InputError
from hqsod.images import find_images, find_others
from hqsod.pairs import Pair
from hqsod.progress import note


@dataclass(frozen=True, slots=True)
class Layout:
    """How a data set lays out its folders; `*` stands for any run of characters."""

    name: str
    images: str
    masks: str


# The first that fits is taken, so the particular ones stand before the general.
LAYOUTS = (
    Layout("DUTS", "*-Image", "*-Mask"),
    Layout("DUT-OMRON", "DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    Layout("PASCAL-S", "datasets/imgs/pascal", "datasets/masks/pascal"),
    Layout("PurNet", "image", "groundtruth"),
    Layout("ECSSD", "images", "ground_truth_mask"),
    Layout("HKU-IS", "imgs", "gt"),
    Layout("DUTS-HQ", "images", "hq-masks"),
    Layout("images and masks", "images", "masks"),
    Layout("Imgs and GT", "Imgs", "GT"),
    Layout("image and mask", "image", "mask"),
)

MASK_ENDINGS = ("_mask", "-mask", "_gt", "-gt", "_GT")


@dataclass(frozen=True, slots=True)
class Found:
    """What a data set's folders hold.

    Attributes:
        layout: the layout's name, in words.
        pairs: photographs with a mask of the same stem, sorted by stem.
        unpaired: photographs without a mask and masks without a photograph.
        ambiguous: further files of a stem that already has one.
        others: files in the folders that are no images, as far as their names say.
    """

    layout: str
    pairs: tuple[Pair, ...]
    unpaired: tuple[Path, ...]
    ambiguous: tuple[Path, ...]
    others: tuple[Path, ...]


def find_pairs(
    source: Path, images: str | None = None, masks: str | None = None
) -> tuple[Pair, ...]:
    """The pairs of a data set, sorted by stem; raises as `find`."""
    return find(source, images, masks).pairs


def find(source: Path, images: str | None = None, masks: str | None = None) -> Found:
    """A data set that has pairs; what else is left out is said in a line, unpaired files excepted.

    Raises:
        InputError: as `inspect`, or not one pair was found.
    """
    found = inspect(source, images, masks)
    if not found.pairs:
        raise InputError(
            f"{source}: no image with a mask of the same name ({found.layout})",
            expected="pairs such as x.jpg and x.png",
            fix="name the folders with --images and --masks",
        )
    for files, what in (
        (found.ambiguous, "files with the same name as another"),
        (found.others, "files whose names are not those of images"),
    ):
        if files:
            note(
                f"{source}: left out {what}: {len(files)}, such as {files[0].name}; see hqsod check"
            )
    return found


def inspect(source: Path, images: str | None = None, masks: str | None = None) -> Found:
    """Look at a data set's folders without opening an image.

    Args:
        source: the data set's folder, or a folder that holds just one.
        images: folder of the photographs, absolute or within `source`; found where None.
        masks: folder of the masks, likewise.

    Raises:
        InputError: no such folder, only one of the two named, no known layout, or several data
            sets.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    if (images is None) != (masks is None):
        raise InputError("only one of --images and --masks", expected="both or neither")
    if images is not None and masks is not None:
        folders = _subfolder(source, images), _subfolder(source, masks)
        return _match("the folders named", *folders)
    if found := _laid_out(source):
        return found
    inner = [path for path in sorted(source.iterdir()) if path.is_dir()]
    several = {path.name: found for path in inner if (found := _laid_out(path))}
    if len(several) > 1:
        raise InputError(
            f"{source}: holds {', '.join(several)}", expected="one data set", fix="name one of them"
        )
    return next(iter(several.values())) if several else _flat(source)


def _laid_out(root: Path) -> Found | None:
    """What the folders in `root` hold, if they are those of a known layout."""
    for layout in LAYOUTS:
        if fitting := _folders(root, layout):
            return _match(f"{layout.name} layout", *fitting)
    return None


def _subfolder(source: Path, name: str) -> Path:
    folder = source / Path(name).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return folder


def _folders(root: Path, layout: Layout) -> tuple[Path, Path] | None:
    """The two folders of `layout` in `root`, when there is just one of each."""
    images = [path for path in root.glob(layout.images) if path.is_dir()]
    masks = [path for path in root.glob(layout.masks) if path.is_dir()]
    return (images[0], masks[0]) if len(images) == len(masks) == 1 else None


def _match(layout: str, images: Path, masks: Path) -> Found:
    photographs, found = find_images(images), find_images(masks)
    return _match_files(layout, photographs, found, [*find_others(images), *find_others(masks)])


def _match_files(
    layout: str, images: Sequence[Path], masks: Sequence[Path], others: Sequence[Path]
) -> Found:
    image_of, doubled_images = by_stem(images)
    mask_of, doubled_masks = masks_by_stem(masks, image_of)
    pairs = tuple(Pair(s, image_of[s], mask_of[s]) for s in sorted(image_of.keys() & mask_of))
    alone = [image_of[s] for s in sorted(image_of.keys() - mask_of)]
    alone += [mask_of[s] for s in sorted(mask_of.keys() - image_of)]
    doubled = tuple(doubled_images + doubled_masks)
    return Found(layout, pairs, tuple(alone), doubled, tuple(others))


def _common_ending(masks: Sequence[Path]) -> str:
    """What all masks add to the names of their images, if it is usual: `x_mask.png` of `x.jpg`."""
    for ending in MASK_ENDINGS:
        if masks and all(mask.stem.endswith(ending) for mask in masks):
            return ending
    return ""


def _flat(source: Path) -> Found:
    """Photographs `x.jpg` beside masks `x.png` in one folder."""
    files = find_images(source)
    if not files:
        known = "; ".join(f"{layout.images} + {layout.masks}" for layout in LAYOUTS)
        raise InputError(
            f"{source}: no known layout",
            expected=f"one of {known}; or x.jpg beside x.png",
            fix="name the folders with --images and --masks",
        )
    photographs = [file for file in files if file.suffix.lower() != ".png"]
    masks = [file for file in files if file.suffix.lower() == ".png"]
    return _match_files("flat layout", photographs, masks, find_others(source))


def masks_by_stem(
    masks: Sequence[Path], images: Collection[str] = ()
) -> tuple[dict[str, Path], list[Path]]:
    """`by_stem` of the images that masks belong to: `x` of `x_mask.png` where all are named so.

    Args:
        masks: in order.
        images: stems; where the masks' whole names are those of more of them, they are left whole.
    """
    readings = by_stem(masks, _common_ending(masks)), by_stem(masks)
    return max(readings, key=lambda reading: len(reading[0].keys() & set(images)))


def by_stem(files: Sequence[Path], ending: str = "") -> tuple[dict[str, Path], list[Path]]:
    """The first file of each stem, in order, and the further files of a stem seen before.

    Args:
        files: in order.
        ending: what stems end in, and is left out.
    """
    first: dict[str, Path] = {}
    doubled = [
        file for file in files if first.setdefault(file.stem.removesuffix(ending), file) != file
    ]
    return first, doubled

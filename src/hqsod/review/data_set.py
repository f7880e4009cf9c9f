"""A data set as the page sees it: its pairs, the files behind them, and what people decided.

Every question opens the manifest anew, so that nothing is held that a kill could lose and a build
that is still running is seen as it goes. Images and built masks are never written to.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from hqsod import canvas, encoding, images
from hqsod.canvas import Placement
from hqsod.dataset.decisions import (
    LATER,
    REJECT,
    Decision,
    Decisions,
    RebuiltError,
    chosen,
    digest_of,
    painted_name,
    version_file,
    versions,
)
from hqsod.dataset.folders import CORRECTED_FOLDER, IMAGES, own_path
from hqsod.dataset.manifest import Manifest, Record
from hqsod.errors import InputError
from hqsod.images import Array
from hqsod.review import pictures, words
from hqsod.review.listing import Listing, Query
from hqsod.review.pictures import MissingError

PICTURE = "picture"  # what the page calls the photograph among the layers
MOST = 1_000_000  # decisions on a pair


class Wish(BaseModel, extra="forbid"):
    """A decision as the page sends it; fields as in `Decisions.add`.

    `seen` is that of the card which was looked at; empty to decide on the masks whatever they are.
    """

    choice: Annotated[str, Field(max_length=80)] | None = None
    note: Annotated[str, Field(max_length=2000)] = ""
    who: Annotated[str, Field(min_length=1, max_length=80)]
    seen: Annotated[str, Field(max_length=80)] = ""
    after: Annotated[int, Field(ge=0, le=MOST)]


class ReviewSet:
    """The data set in a folder, under review.

    Args:
        folder: a built data set, or one of linked folders.

    Raises:
        OutputError: the folder of painted masks is a link.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own_path(folder, CORRECTED_FOLDER)

    def about(self) -> dict[str, Any]:
        """Its name, and the quality figures that its pairs have."""
        with Listing.open(self.folder) as pairs:
            names = pairs.figures()
        figures = [
            {"name": figure.name, "title": figure.title, "high_is_bad": figure.high_is_bad}
            for name, figure in words.FIGURES.items()
            if name in names
        ]
        return {"name": self.folder.resolve().name, "figures": figures}

    def pairs(self, query: Query) -> dict[str, Any]:
        """Stems of the pairs wanted, in order, and how many there are of each state."""
        with Listing.open(self.folder) as pairs:
            return {"stems": pairs.stems(query), "counts": pairs.counts()}

    def cards(self, stems: Sequence[str]) -> list[dict[str, Any]]:
        """What the grid shows of these pairs; those that are not built are left out."""
        with Manifest.open(self.folder) as manifest, Decisions.open(self.folder) as decisions:
            found = [(manifest.find(stem), decisions.history(stem)) for stem in stems]
        return [
            self._card(record, history)
            for record, history in found
            if record is not None and record.status == "built"
        ]

    def pair(self, stem: str) -> dict[str, Any]:
        """All that the page shows of a pair.

        Raises:
            MissingError: there is no such pair, or one of its files is missing.
        """
        record, history = self._find(stem)
        layers = self._layers(record, history)
        placement = record.placement
        if placement is None:
            size = images.read_size(layers[PICTURE])
            placement = Placement(size, 0, 0, size)
        height, width = placement.canvas
        return self._card(record, history) | {
            "height": height,
            "width": width,
            "tile": pictures.TILE,
            "window": [placement.top, placement.left, *placement.size],
            "layers": {name: pictures.stamp(path) for name, path in layers.items()},
            "quality": words.describe(record),
            "notes": record.notes,
            "history": [asdict(decision) for decision in history],
        }

    def layer(self, stem: str, name: str, stamp: str) -> Path:
        """The file of a pair's layer.

        Raises:
            MissingError: there is none, or it has changed since it had this stamp.
        """
        path = self._layers(*self._find(stem)).get(name)
        if path is None or stamp != pictures.stamp(path):
            raise MissingError(f"{stem}: {name} has changed", fix="load the page again")
        return path

    def compared(self, stem: str, stamp: str) -> tuple[Array, Array, Array]:
        """A pair's photograph and the first two versions of its mask, without their canvas.

        Raises:
            MissingError: its files have changed since they had this stamp.
        """
        record, _ = self._find(stem)
        if stamp != self._thumbnail_stamp(record):
            raise MissingError(f"{stem}: the files have changed", fix="load the page again")
        path, first, *others = self._layers(record, []).values()
        masks = first, (others or [first])[0]
        read = [images.read_image(path), *(images.read_map(mask) for mask in masks)]
        image, before, after = (canvas.unpad(array, record.placement) for array in read)
        return image, before, after

    def decide(self, stem: str, wish: Wish) -> dict[str, Any]:
        """Keep a decision, and return the pair's card and the counts as they are then.

        Raises:
            MissingError: there is no such pair or version.
            OvertakenError: somebody decided meanwhile.
            RebuiltError: the masks are not those that were seen.
        """
        record, history = self._find(stem)
        allowed = [*list(self._layers(record, history))[1:], REJECT, LATER]
        if wish.choice not in (None, *allowed):
            raise MissingError(
                f"{stem}: no choice is called {wish.choice}", expected=", ".join(allowed)
            )
        return self._add(record, wish)

    def correct(self, stem: str, png: bytes, wish: Wish) -> dict[str, Any]:
        """Keep a painted mask, and the decision to take it; as `decide`.

        Raises:
            InputError: the file is no mask of the image's size.
        """
        record, history = self._find(stem)
        mask = images.read_map(io.BytesIO(png))
        size = images.read_size(self._layers(record, history)[PICTURE])
        if mask.shape != size:
            raise InputError(
                f"{stem}: a corrected mask of {mask.shape}", expected=f"the image's size {size}"
            )
        name = painted_name(wish.after + 1)
        path = version_file(self.folder, record, name)
        taken = wish.model_copy(update={"choice": name})
        return self._add(record, taken, lambda: encoding.write_png(path, mask))

    def _add(
        self, record: Record, wish: Wish, first: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        if wish.seen not in ("", digest_of(record.outputs)):
            raise RebuiltError(record.stem)
        with Decisions.open(self.folder) as decisions:
            decisions.add(record, wish.who, wish.choice, wish.note, wish.after, first)
            history = decisions.history(record.stem)
        with Listing.open(self.folder) as pairs:
            return {"card": self._card(record, history), "counts": pairs.counts()}

    def _find(self, stem: str) -> tuple[Record, list[Decision]]:
        with Manifest.open(self.folder) as manifest, Decisions.open(self.folder) as decisions:
            record, history = manifest.find(stem), decisions.history(stem)
        if record is None or record.status != "built":
            raise MissingError(f"{stem}: no such pair")
        return record, history

    def _layers(self, record: Record, history: Sequence[Decision]) -> dict[str, Path]:
        """The photograph and the versions of its mask, in order, the painted ones last.

        Those painted before a rebuild at another size no longer fit, and are left out.
        """
        painted = [row.choice for row in reversed(history) if row.painted and row.choice]
        paths = {PICTURE: self.folder / record.outputs[IMAGES].path}
        for name in [*versions(record), *painted]:
            paths[name] = version_file(self.folder, record, name)
        for path in paths.values():
            pictures.require(path)
        size = images.read_size(paths[PICTURE]) if painted else None
        misfits = {name for name in painted if images.read_size(paths[name]) != size}
        return {name: path for name, path in paths.items() if name not in misfits}

    def _thumbnail_stamp(self, record: Record) -> str | None:
        """Changes with the files; None where one is missing, which the grid says in its place."""
        try:
            paths = list(self._layers(record, []).values())[:3]
        except InputError:
            return None
        return "-".join(pictures.stamp(path) for path in paths)

    def _card(self, record: Record, history: Sequence[Decision]) -> dict[str, Any]:
        """What the grid shows of a pair."""
        newest = history[0] if history else None
        holds = newest is not None and newest.holds_for(record)
        return {
            "stem": record.stem,
            "score": record.score,
            "flagged": record.flagged,
            "choice": newest.choice if newest and holds else None,
            "note": newest.note if newest else "",
            "number": newest.number if newest else 0,
            "seen": digest_of(record.outputs),
            "rebuilt": newest is not None and not holds,
            "counts_as": chosen(record, newest),
            "thumbnail": self._thumbnail_stamp(record),
        }

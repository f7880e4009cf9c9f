"""The folders of a built data set: their names, and what lies inside.

The first three names are those of DUTS-HQ.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from hqsod import addresses
from hqsod.errors import InputError, OutputError

IMAGES, MASKS, REFINED = "images", "masks", "hq-masks"
CORRECTED_FOLDER = "corrected-masks"  # the versions that a person painted
FINAL_FOLDER = "final-masks"  # what hqsod apply makes of the decisions


def own_path(dest: Path, name: str) -> Path:
    """A folder or file of the data set that is written to and cleaned up.

    Raises:
        OutputError: it is a link, and what it leads to belongs to something else.
    """
    path = dest / name
    if path.is_symlink():
        raise OutputError(
            f"{path}: a link to {path.readlink()}",
            expected="something of the data set's own",
            fix="remove the link",
        )
    return path


class Inside:
    """Whether names and paths lead out of the data set in `folder`, after links are resolved.

    A folder right in the data set may be a link: that is how `hqsod review --images` makes one of
    folders that stay where they are. What lies in such a folder may not lead out of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._links_in = lru_cache(None)(self._find_links)

    def require_name(self, name: str) -> None:
        """Check that a name is that of one file or folder.

        Raises:
            InputError: it is none.
        """
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise self._outside(name)

    def require_path(self, text: str) -> None:
        """Check a path within the data set.

        Raises:
            InputError: it leads out.
        """
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts or "\0" in text or not path.parts:
            raise self._outside(text)
        if addresses.is_remote(self.folder):
            return
        for depth in range(1, len(path.parts) + 1):
            parent, name = self.folder.joinpath(*path.parts[: depth - 1]), path.parts[depth - 1]
            is_linked_folder = depth == 1 and len(path.parts) > 1
            if name in self._links_in(parent) and not is_linked_folder:
                home = parent.resolve() if depth > 1 else self.folder.resolve()
                if not (parent / name).resolve().is_relative_to(home):
                    raise self._outside(text)

    @staticmethod
    def _find_links(folder: Path) -> frozenset[str]:
        """The links in a folder: all at once, since a data set has thousands of files."""
        if not folder.is_dir():
            return frozenset()
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())

    def _outside(self, text: str) -> InputError:
        return InputError(
            f"{self.folder}: its manifest names {text!r}, which is outside of it",
            expected="names within the data set",
            fix="do not use this data set: whoever made it may want to harm you",
        )

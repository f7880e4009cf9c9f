"""The names of the folders of a built data set; the first three are those of DUTS-HQ."""

from __future__ import annotations

from pathlib import Path

from hqsod.errors import OutputError

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

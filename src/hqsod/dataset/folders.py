"""The folders of a built data set: their names, and what lies inside.

The first three names are those of DUTS-HQ.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from hqsod import addresses
from hqsod.errors import InputError, OutputError

LONGEST = 251  # bytes of a pair's name: a file's has 255
LAYERS = IMAGES, MASKS, REFINED = "images", "masks", "hq-masks"
CORRECTED_FOLDER = "corrected-masks"  # the versions that a person painted
FINAL_FOLDER = "final-masks"  # what hqsod apply makes of the decisions


def own_path(dest: Path, name: str) -> Path:
    """A folder or file within `dest` that is written to and cleaned up.

    Raises:
        OutputError: a part of its name is a link, and what it leads to belongs to something else.
    """
    path = dest
    for part in Path(name).parts:
        path /= part
        if path.is_symlink():
            raise OutputError(
                f"{path}: a link to {path.readlink()}",
                expected="something of the data set's own",
                fix="remove the link",
            )
    return path


def require_name(dest: Path, name: str) -> None:
    """Check that a name in the manifest of `dest` can be that of one file, `.png` added.

    Raises:
        InputError: it is none.
    """
    too_long = len(name.encode()) > LONGEST
    if name in ("", ".", "..") or "/" in name or "\0" in name or too_long:
        raise _outside(dest, name)


def require_path(dest: Path, text: str) -> None:
    """Check that a path in the manifest of `dest` stays within it, after links are resolved.

    A folder right in the data set may be a link: that is how `hqsod review --images` makes one of
    folders that stay where they are. What lies in such a folder may not lead out of it.

    Raises:
        InputError: it leads out.
    """
    path = PurePosixPath(text)
    too_long = any(len(part.encode()) > LONGEST + 4 for part in path.parts)
    if path.is_absolute() or ".." in path.parts or "\0" in text or not path.parts or too_long:
        raise _outside(dest, text)
    if addresses.is_remote(dest):
        return
    here = dest
    for depth, name in enumerate(path.parts):
        parent, here = here, here / name
        is_linked_folder = depth == 0 and len(path.parts) > 1
        if is_linked_folder or not here.is_symlink():
            continue
        if not here.resolve().is_relative_to(parent.resolve()):
            raise _outside(dest, text)


def _outside(dest: Path, text: str) -> InputError:
    return InputError(
        f"{dest}: its manifest names {text!r}, which is outside of it",
        expected="names within the data set",
        fix="do not use this data set: whoever made it may want to harm you",
    )

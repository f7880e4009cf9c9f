"""Where a build keeps its manifest: in DEST, or near it, for SQLite needs a disk.

At an address the stored manifest counts. A run copies it to a temporary folder, appends there, and
puts the copy back whole every half minute and at the end. What a killed run had not put back is
built again, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from hqsod import addresses
from hqsod.building.recipes import BuildSettings, read_settings
from hqsod.dataset.folders import LAYERS, own_path
from hqsod.dataset.lock import sole_run
from hqsod.dataset.manifest import NAME, Manifest

SECONDS = 30.0  # of records that a kill may cost at an address
LARGEST_SHARE = 0.1  # of the time, spent on putting back a manifest grown large


class Home:
    """The folder that holds the manifest while a build runs.

    Attributes:
        folder: on this machine's disk.
    """

    def __init__(self, folder: Path, dest: Path) -> None:
        self.folder, self._dest = folder, dest
        self._next = monotonic() + SECONDS

    def save(self) -> None:
        """Put the manifest back if it is time; call it after every record."""
        if monotonic() >= self._next:
            self.save_now()

    @property
    def has_manifest(self) -> bool:
        """Whether there is one; a full disk may have left an empty file."""
        return bool(addresses.sizes(self.folder).get(NAME))

    def save_now(self) -> None:
        """Put the manifest back; on a disk it is there already."""
        if not addresses.is_remote(self._dest):
            return
        start = monotonic()
        addresses.write_bytes(self._dest / NAME, (self.folder / NAME).read_bytes())
        end = monotonic()
        self._next = end + max(SECONDS, (end - start) / LARGEST_SHARE)


@contextmanager
def open_home(dest: Path) -> Iterator[Home]:
    """Prepare the folder for one run.

    Raises:
        OutputError: `dest` cannot be written to, one of its folders is a link, or another run is
            at work there.
    """
    if not addresses.is_remote(dest):
        with sole_run(dest):
            for folder in ("", *LAYERS):
                addresses.sweep(own_path(dest, folder), age=0)
            yield Home(dest, dest)
        return
    with TemporaryDirectory(prefix="hqsod-") as name:
        home = Home(Path(name), dest)
        if addresses.sizes(dest).get(NAME):
            (home.folder / NAME).write_bytes(addresses.read_bytes(dest / NAME))
        try:
            yield home
        finally:
            if home.has_manifest:
                home.save_now()


def made_with(dest: Path) -> BuildSettings | None:
    """The settings that the newest pair of a data set was built with; None where there is none."""
    if not addresses.sizes(dest).get(NAME):
        return None
    with TemporaryDirectory(prefix="hqsod-") as name:
        folder = dest
        if addresses.is_remote(dest):
            folder = Path(name)
            (folder / NAME).write_bytes(addresses.read_bytes(dest / NAME))
        with Manifest.open(folder) as manifest:
            settings = manifest.newest_recipe()
    return read_settings(settings or {})

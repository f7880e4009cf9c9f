"""What others found wrong with the pairs of a data set, as a CSV file; see docs/duts-faults.md."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from hqsod.addresses import read_bytes
from hqsod.errors import InputError

COLUMNS = ("stem", "fault", "found")


@dataclass(frozen=True, slots=True)
class KnownFault:
    """A row: the pair's stem, a kind of fault, and how it was found."""

    stem: str
    fault: str
    found: str


def read_known_faults(path: Path) -> tuple[KnownFault, ...]:
    """The rows of a CSV file with the columns `stem`, `fault` and `found`.

    Raises:
        InputError: it cannot be read, a column is missing, or a row leaves one empty.
    """
    try:
        rows = csv.DictReader(read_bytes(path).decode("utf-8-sig").splitlines(), strict=True)
        missing = set(COLUMNS).difference(rows.fieldnames or ())
        faults = [] if missing else [KnownFault(*(row[name] for name in COLUMNS)) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {error}", expected="a CSV file in UTF-8") from error
    if missing:
        raise InputError(f"{path}: no column {min(missing)}", expected=", ".join(COLUMNS))
    for number, fault in enumerate(faults, start=1):
        if not (fault.stem and fault.fault and fault.found):
            raise InputError(f"{path}: row {number} is not whole", expected=", ".join(COLUMNS))
    return tuple(faults)

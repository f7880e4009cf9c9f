"""How to cite what hqsod builds on: the BibTeX entries that cards and commands use."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def citations() -> dict[str, str]:
    """The entries of `citations.bib`, by the name that stands above each."""
    text = Path(__file__).with_name("citations.bib").read_text(encoding="utf-8")
    named = (part.partition("\n") for part in text.strip().split("\n\n"))
    return {name.removeprefix("% "): entry for name, _, entry in named}

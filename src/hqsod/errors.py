"""What can go wrong, said so that the reader knows what to do next.

Every error carries three things: what came, what was expected, and what to do now. The command
line prints them as one line; `--debug` adds the traceback.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with what a terminal might obey, or cannot show, as `\\x1b`; on one line.

    File names come from strangers: one may hold escape sequences, or bytes that are no UTF-8.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class HqsodError(Exception):
    """Base of every error a user can cause or mend.

    Args:
        got: what came, naming the file or the value.
        expected: what would have been right, without a full stop; None where `got` says it.
        fix: what to do now, an imperative without a full stop; None where `got` says it.
    """

    def __init__(self, got: str, *, expected: str | None = None, fix: str | None = None) -> None:
        super().__init__(got)  # and nothing else, so that errors pass between processes
        self.got, self.expected, self.fix = got, expected, fix

    def __str__(self) -> str:
        wanted = self.expected and f"expected {self.expected}"
        return printable("; ".join(part for part in (self.got, wanted, self.fix) if part))


class InputError(HqsodError):
    """A file, folder or array that cannot be used as it is."""


class SettingsError(HqsodError):
    """An option, recipe or environment that asks for what cannot be had."""


class WeightsError(HqsodError):
    """Weights that are missing, damaged or made for another network."""


class OutputError(HqsodError):
    """A result that could not be written, or a destination in use."""


class TrainingError(HqsodError):
    """A training that cannot go on or has not learned what it should."""

"""What networks say when weights do not fit them: one sentence for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hqsod.errors import WeightsError

_LONGEST = 200  # characters of a reason: PyTorch names every tensor


@contextmanager
def fitting(expected: str, source: str = "") -> Iterator[None]:
    """Read a network's sizes from a checkpoint and load it in this block.

    Args:
        expected: whose weights would have been right.
        source: where these come from, for the message.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
    """
    try:
        yield
    except KeyError as error:
        raise misfit(f"no tensor {error}", expected, source) from error
    except (LookupError, RuntimeError, ValueError, TypeError) as error:
        lines = str(error).splitlines()
        raise misfit(lines[min(1, len(lines) - 1)] if lines else "", expected, source) from error


def misfit(reason: str, expected: str, source: str = "") -> WeightsError:
    """The error for weights of another network."""
    return WeightsError(
        f"{source and f'{source}: '}weights that do not fit: {' '.join(reason.split())[:_LONGEST]}",
        expected=expected,
        fix="use weights for this network",
    )

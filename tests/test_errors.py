"""Errors say what came, what was expected and what to do, here and across processes."""

import pickle

import pytest

from hqsod.errors import HqsodError, InputError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.png: 3 levels"), "a.png: 3 levels"),
        (InputError("3 levels", expected="2"), "3 levels; expected 2"),
        (InputError("3 levels", fix="use 2"), "3 levels; use 2"),
        (InputError("3 levels", expected="2", fix="use 2"), "3 levels; expected 2; use 2"),
    ],
)
def test_the_message_is_one_sentence_that_passes_between_processes(error: HqsodError, line: str):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (InputError, line)
    assert (again.got, again.expected, again.fix) == (error.got, error.expected, error.fix)

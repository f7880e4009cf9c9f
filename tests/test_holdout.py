"""Which images are held out: names decide, and never none of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hqsod.dataset.holdout import hold_out, holdout_fraction

NAMES = st.lists(st.text(min_size=1), unique=True, min_size=2)


@given(names=NAMES, share=st.floats(1e-9, 0.99))
def test_one_is_held_out_at_least(names: list[str], share: float) -> None:
    held = hold_out(names, share)
    assert held
    assert held <= set(names)
    if len(held) > 1:
        assert all(holdout_fraction(name) < share for name in held)


def test_about_the_share_is_held_out_and_none_where_none_is_wanted() -> None:
    names = [f"image{i}" for i in range(1000)]
    assert 30 < len(hold_out(names, 0.05)) < 70
    assert not hold_out(names, 0)
    assert not hold_out(["alone"], 0.5) or holdout_fraction("alone") < 0.5
    assert not hold_out([], 0.5)

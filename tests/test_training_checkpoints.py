"""Checkpoints and the journal of a run."""

from __future__ import annotations

from pathlib import Path

import torch

from hqsod.training.checkpoints import Journal, newest_state, save_state
from tests.training_job import losses


def test_the_newest_three_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save_state(tmp_path, step, {"step": step, "random": torch.get_rng_state()})
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{s:08d}.pt" for s in (2, 3, 4)]
    state = newest_state(tmp_path)
    assert state is not None
    assert state["step"] == 4


def test_a_journal_drops_what_comes_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(step, {"loss": step / 2})
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # cut short by a kill
    journal = Journal(tmp_path, 2)
    journal.write(3, {"loss": 9.0})
    journal.close()
    assert [line["loss"] for line in losses(tmp_path)] == [0.5, 1.0, 9.0]

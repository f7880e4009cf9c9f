"""Checkpoints and the journal of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from hqsod.errors import OutputError, WeightsError
from hqsod.training.checkpoints import Journal, read_log, restore_newest, save_state
from tests.training_job import Noise, losses, purnet_trainer


def test_the_newest_three_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save_state(tmp_path, step, {"step": step, "random": torch.get_rng_state()})
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{s:08d}.pt" for s in (2, 3, 4)]
    restored: list[dict[str, Any]] = []
    restore_newest(tmp_path, restored.append)
    assert [state["step"] for state in restored] == [4]


@pytest.mark.parametrize(
    "content", [b"", bytes(100), [1, 2], {"step": 3}, {"network": Path("code")}], ids=str
)
def test_a_checkpoint_that_is_none_of_ours_is_told_in_a_line(
    tmp_path: Path, content: object
) -> None:
    path = tmp_path / "step-00000007.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    trainer, _ = purnet_trainer(Accelerator(cpu=True), Noise())
    with pytest.raises(WeightsError, match=r"step-00000007.pt: not a whole checkpoint.*delete it"):
        restore_newest(tmp_path, trainer.restore)


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


def test_a_journal_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OutputError, match="File exists; free space, then go on with --resume"):
        journal.write(1, {"loss": 1.0})
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        journal.write(1, {"loss": 1.0})


@pytest.mark.parametrize(
    "end", [bytes(40), bytes(40) + b"\n", b'{"step": 2, "lo', b"[3]\n", b"[" * 9999 + b"\n"]
)
def test_a_log_is_read_up_to_where_it_is_damaged(tmp_path: Path, end: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1, "loss": 0.5}\n' + end)
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 0.5}]
    Journal(tmp_path, 5).write(2, {"loss": 0.25})
    assert [line["loss"] for line in read_log(tmp_path / "log.jsonl")] == [0.5, 0.25]

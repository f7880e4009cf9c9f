"""What a run leaves on disk: checkpoints to go on from, a log, pictures to look at.

Everything is written whole or not at all, so a run can be killed at any moment.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hqsod.addresses import write_bytes
from hqsod.errors import WeightsError
from hqsod.images import encode_jpeg
from hqsod.training.task import Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_KEPT = 3


def save_state(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write a checkpoint and delete all but the newest three."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_bytes(folder / f"step-{step:08d}.pt", buffer.getvalue())
    for old in sorted(folder.glob("step-*.pt"))[:-_KEPT]:
        old.unlink()


def newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint, on the CPU; None where there is none.

    Raises:
        WeightsError: the file is damaged.
    """
    files = sorted(folder.glob("step-*.pt"))
    if not files:
        return None
    try:
        state: dict[str, Any] = torch.load(files[-1], map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError) as error:
        raise WeightsError(
            f"{files[-1]}: {error}",
            expected="a checkpoint",
            fix="delete it to go on from the one before",
        ) from error
    return state


class Journal:
    """Losses and scores as JSON lines and for TensorBoard, pictures as files and for TensorBoard.

    Args:
        folder: of the run.
        step: where the run goes on; what was logged after it is dropped, for it comes again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        self._log = folder / "log.jsonl"
        self._tensorboard: SummaryWriter | None = None
        if self._log.is_file():
            write_bytes(self._log, _lines_up_to(self._log, step))
        else:
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line and add the values to TensorBoard."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board().add_scalar(name, value, step)

    def show(self, step: int, validation: Validation) -> None:
        """Log scores and keep the sheet of predictions."""
        self.write(step, {f"validation/{n}": v for n, v in validation.scores.items()})
        write_bytes(
            self.folder / "samples" / f"step-{step:08d}.jpg", encode_jpeg(validation.picture)
        )
        self._board().add_image("predictions", validation.picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _board(self) -> SummaryWriter:
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._tensorboard = SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self.step + 1
            )
        return self._tensorboard


def _lines_up_to(path: Path, step: int) -> bytes:
    """The lines of a log up to a step; a kill may have cut the last one short."""
    kept = b""
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept += line
    return kept

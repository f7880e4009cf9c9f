"""What a run leaves on disk: checkpoints to go on from, a log, sheets of predictions to look at.

Everything is written whole or not at all, so a run can be killed at any moment.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hqsod.addresses import write_bytes
from hqsod.encoding import encode_jpeg
from hqsod.errors import OutputError, WeightsError
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


def restore_newest(folder: Path, restore: Callable[[dict[str, Any]], None]) -> None:
    """Go back to the newest checkpoint, if there is one.

    Args:
        folder: of the checkpoints.
        restore: takes what `save_state` was given, on the CPU.

    Raises:
        WeightsError: the file is damaged, incomplete or of another network.
    """
    files = sorted(folder.glob("step-*.pt"))
    if not files:
        return
    try:
        restore(torch.load(files[-1], map_location="cpu", weights_only=True))
    except Exception as error:  # damaged or foreign bytes raise almost anything
        raise WeightsError(
            f"{files[-1]}: not a whole checkpoint of this run",
            fix="delete it to go on from the one before",
        ) from error


class Journal:
    """Losses and scores as JSON lines and for TensorBoard, sheets as files and for TensorBoard.

    Args:
        folder: of the run.
        step: where the run goes on; what was logged after it is dropped, for it comes again.

    Raises:
        OutputError: from here and from every method, where the folder cannot be written to.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        self._log = folder / "log.jsonl"
        self._tensorboard: SummaryWriter | None = None
        kept = [line for line in read_log(self._log) if line["step"] <= step]
        write_bytes(self._log, "".join(f"{json.dumps(line)}\n" for line in kept).encode())

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line and add the values to TensorBoard."""
        with self._writing():
            with self._log.open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self._board().add_scalar(name, value, step)

    def show(self, step: int, validation: Validation) -> None:
        """Log scores and keep the sheet of predictions."""
        self.write(step, {f"validation/{n}": v for n, v in validation.scores.items()})
        path = self.folder / "samples" / f"step-{step:08d}.jpg"
        write_bytes(path, encode_jpeg(validation.sheet))
        with self._writing():
            self._board().add_image("predictions", validation.sheet, step, dataformats="HWC")

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._tensorboard is not None:
            with self._writing():
                self._tensorboard.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # TensorBoard's thread hands on its own
            raise OutputError(
                f"{self.folder}: {error.strerror}", fix="free space, then go on with --resume"
            ) from error

    def _board(self) -> SummaryWriter:
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._tensorboard = SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self.step + 1
            )
        return self._tensorboard


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a log up to the first that is not whole: a kill or a crash may have cut it."""
    lines: list[dict[str, float]] = []
    if not path.is_file():
        return lines
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            line = json.loads(text) if text.endswith(b"\n") else None
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines

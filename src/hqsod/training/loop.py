"""The loop: takes a task through its steps, and can be killed at any of them.

To train something of your own, write a `TrainingTask` (see `hqsod.training.task`: a network, its
parts, a data set, `objectives(batch)` and `validate(network)`) and call

    weights = run(task, LoopSettings(steps=..., batch=..., rates={part: rate}), folder, accelerator)

with `accelerator = accelerate.Accelerator(cpu=..., mixed_precision="bf16" or "no")`. The same call
again goes on from the newest checkpoint in `folder`, or returns at once when all is done. `folder`
then holds `weights.safetensors` (the last step's), `best.safetensors`, `log.jsonl`, `samples/`,
`checkpoints/` and `tensorboard/`.

Several processes each show their share of every batch. The network is not wrapped for that, since
several losses may go through one graph, each with its own parameters: gradients are averaged once
all of them are there. An accelerator made with `gradient_accumulation_steps` shows each share in
that many parts, one after the other: a large batch for a small memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hqsod import weights
from hqsod.errors import SettingsError
from hqsod.progress import note, progress_bar
from hqsod.training.batches import Batches
from hqsod.training.checkpoints import Journal, restore_newest, save_state
from hqsod.training.settings import LoopSettings
from hqsod.training.task import TrainingTask
from hqsod.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator


def run(task: TrainingTask, settings: LoopSettings, folder: Path, accelerator: Accelerator) -> Path:
    """Train until all steps are done.

    Args:
        task: what is trained.
        settings: how.
        folder: of this stage; it may hold a part of the same run.
        accelerator: where.

    Returns:
        Path of the last step's weights.

    Raises:
        SettingsError: nothing to train on, a batch that the processes cannot share, or a part that
            does not exist.
        TrainingError: a loss or weights that are not finite.
        WeightsError: the newest checkpoint in `folder` is damaged, or of another network.
        OutputError: `folder` cannot be written to.
    """
    final = folder / "weights.safetensors"
    if final.is_file():
        return final
    batches = _batches(task, settings, accelerator)
    trainer = Trainer(task, settings, accelerator)
    restore_newest(folder / "checkpoints", trainer.restore)
    journal = Journal(folder, trainer.step) if accelerator.is_main_process else None
    shown = accelerator.is_main_process
    with progress_bar(
        settings.steps, folder.name, "steps", before=trainer.step, shown=shown
    ) as bar:
        parts = accelerator.gradient_accumulation_steps
        for batch in batches.ahead(trainer.step * parts, settings.steps * parts):
            if not trainer.train(batch, batches.names):
                continue
            bar.advance()
            if scores := _write_due(trainer, folder, journal):
                note(f"{folder.name} step {trainer.step}: {scores}")
    if journal is not None:
        journal.close()
        _save_weights(final, trainer)
    accelerator.wait_for_everyone()
    return final


def _batches(task: TrainingTask, settings: LoopSettings, accelerator: Accelerator) -> Batches:
    if not len(task.data):
        raise SettingsError(
            "no images are left to train on; all are held out for validation",
            expected="at least one",
            fix="add images, lower the recipe's holdout with --set, or name a data set for "
            "--validation",
        )
    processes, rank = accelerator.num_processes, accelerator.process_index
    each = share(settings, accelerator)
    return Batches(task.data, each, settings.seed, rank, processes, accelerator.device)


def share(settings: LoopSettings, accelerator: Accelerator) -> int:
    """How many images of a batch a process shows at a time.

    Raises:
        SettingsError: the processes cannot share it.
    """
    processes, parts = accelerator.num_processes, accelerator.gradient_accumulation_steps
    together: int = processes * parts
    each, rest = divmod(settings.batch, together)
    if rest:
        raise SettingsError(
            f"a batch of {settings.batch} for {processes} processes in {parts} parts each",
            expected=f"a multiple of {together}",
            fix="change batch, the number of processes or --accumulate",
        )
    return each


def _write_due(trainer: Trainer, folder: Path, journal: Journal | None) -> str:
    """Write what is due at this step; what validation said, in words.

    The checkpoint comes last: going on from it must not leave out what came before it.
    """
    pace, step, note = trainer.settings.pace, trainer.step, ""
    last = step == trainer.settings.steps
    if step % pace.log == 0 or last:
        values = trainer.averages()
        if journal is not None:
            journal.write(step, values)
    if step % pace.validation == 0 or step % pace.checkpoint == 0 or last:
        trainer.agree_on_buffers()
        trainer.require_finite()
    if journal is not None and (step % pace.validation == 0 or last):
        validation = trainer.validate()
        if validation is not None:
            journal.show(step, validation)
            note = ", ".join(f"{name} {value:.4f}" for name, value in validation.scores.items())
            if validation.error < trainer.best:
                trainer.best = validation.error
                _save_weights(folder / "best.safetensors", trainer)
    if journal is not None and step % pace.checkpoint == 0:
        save_state(folder / "checkpoints", step, trainer.state())
    return note


def _save_weights(path: Path, trainer: Trainer) -> None:
    metadata = {**trainer.task.metadata, "step": str(trainer.step)}
    weights.save(path, trainer.kept.state_dict(), metadata)

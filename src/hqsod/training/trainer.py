"""The state of a training and the steps that change it; `loop` decides when."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hqsod.errors import SettingsError, TrainingError
from hqsod.training.batches import Batch
from hqsod.training.optimizer import averaged, make_optimizer, rate_factor
from hqsod.training.settings import LoopSettings
from hqsod.training.task import TrainingTask, Validation

if TYPE_CHECKING:
    from accelerate import Accelerator


class Trainer:
    """The state of a run and the steps that change it.

    Attributes:
        step: steps done.
        best: smallest validation error so far.
        parts: in how many parts a process shows its share of a batch.
        part: how many of them the next step has had.
    """

    def __init__(
        self, task: TrainingTask, settings: LoopSettings, accelerator: Accelerator
    ) -> None:
        unknown = settings.rates.keys() - task.parts.keys()
        if unknown:
            raise SettingsError(
                f"a learning rate for {min(unknown)}", expected=f"one of {', '.join(task.parts)}"
            )
        self.task, self.settings, self.accelerator = task, settings, accelerator
        self.step, self.best, self._factor = 0, math.inf, 0.0
        self.parts, self.part = accelerator.gradient_accumulation_steps, 0
        self.network = task.network.to(accelerator.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]  # torch's
        self.trained = {
            name: [p for p in part.parameters() if name in settings.rates]
            for name, part in task.parts.items()
        }
        self.optimizer = make_optimizer(task.parts, settings)
        decay = settings.optimizer.average
        self.average = averaged(self.network, decay) if decay else None
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        self._summed = 0
        self._since = time.perf_counter()
        self.freeze()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device(self.accelerator.device)

    @property
    def _on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def freeze(self) -> None:
        """Put what is trained in training mode and the rest, BatchNorm included, out of it."""
        self.network.eval().requires_grad_(False)
        for name in self.settings.rates:
            self.task.parts[name].train().requires_grad_(True)

    def train(self, batch: Batch, names: Callable[[int], Sequence[str]]) -> bool:
        """Learn from a batch, or a part of one; the last part takes the step.

        Args:
            batch: what to learn from.
            names: the images in a batch or part, counted from 0, for the message when a loss is
                not finite.

        Returns:
            Whether a step was taken.
        """
        self._backward(batch, names)
        self.part = (self.part + 1) % self.parts
        if self.part:
            return False
        self._average_gradients()
        if clip := self.settings.optimizer.clip:
            nn.utils.clip_grad_norm_(chain(*self.trained.values()), clip)
        self._factor = rate_factor(self.settings.optimizer, self.step, self.settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * self._factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1
        return True

    def _backward(self, batch: Batch, names: Callable[[int], Sequence[str]]) -> None:
        """Add up gradients: one pass through the graph for each loss, to its own parts only."""
        with self.accelerator.autocast():
            objectives = self.task.objectives(batch)
        losses = [sum(t.float().sum() for t in o.terms.values()) for o in objectives]
        total = torch.stack([torch.as_tensor(loss) for loss in losses]).sum().detach()
        for number, (objective, loss) in enumerate(zip(objectives, losses, strict=True), 1):
            parameters = [p for name in objective.trains for p in self.trained.get(name, ())]
            if parameters:
                self.accelerator.backward(
                    loss, inputs=parameters, retain_graph=number < len(losses)
                )
            for name, term in objective.terms.items():
                self._sums[name] += term.detach().sum()
        if not total.isfinite():  # asked last: until it knows, a GPU has nothing further to do
            raise TrainingError(
                f"the loss at step {self.step + 1} is {total.item()}; "
                f"the batch: {', '.join(names(self.step * self.parts + self.part))}",
                expected="a finite number",
                fix="look at these images, or start again with lower learning rates",
            )
        self._sums["loss"] += total
        self._summed += 1

    def _average_gradients(self) -> None:
        gradients = [p.grad for ps in self.trained.values() for p in ps if p.grad is not None]
        self._share(gradients)

    def agree_on_buffers(self) -> None:
        """Average BatchNorm's running statistics, which each process gathers on its own.

        Those of the network too, where another is kept: a checkpoint has one process's alone.
        """
        networks = {id(n): n for n in (self.network, self.kept)}.values()
        self._share([b for n in networks for b in n.buffers() if b.is_floating_point()])

    def require_finite(self) -> None:
        """Check what is about to be kept: a last step may ruin it, whose loss nobody asks for.

        Raises:
            TrainingError: weights that are not finite.
        """
        state = self.kept.state_dict()
        floats = {name: t for name, t in state.items() if t.is_floating_point()}
        if wrong := [name for name, t in floats.items() if not t.isfinite().all()]:
            raise TrainingError(
                f"{wrong[0]} at step {self.step} is not finite",
                expected="finite weights",
                fix="start again with lower learning rates",
            )

    def _share(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over all processes, in one message."""
        if self.accelerator.num_processes == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        mean = self.accelerator.reduce(flat, "mean").split([t.numel() for t in tensors])
        for tensor, values in zip(tensors, mean, strict=True):
            tensor.copy_(values.view_as(tensor))

    def averages(self) -> dict[str, float]:
        """Losses since this was last asked, over all processes; learning rates; seconds a step."""
        self._share(list(self._sums.values()))
        values = {name: total.item() / self._summed for name, total in self._sums.items()}
        for name in self.settings.rates:
            values[f"learning_rate/{name}"] = self.settings.rates[name] * self._factor
        values["seconds"] = (time.perf_counter() - self._since) * self.parts / self._summed
        self._sums.clear()
        self._summed, self._since = 0, time.perf_counter()
        return values

    def validate(self) -> Validation | None:
        """Score the network that is kept."""
        kept = self.kept
        kept.eval()
        with torch.inference_mode(), self.accelerator.autocast():
            validation = self.task.validate(kept)
        self.freeze()
        return validation

    def state(self) -> dict[str, Any]:
        """All that going on exactly needs; the position in the data follows from the step."""
        return {
            "step": self.step,
            "best": self.best,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self._on_cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to `state`."""
        self.step, self.best = state["step"], state["best"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])
        if self._on_cuda and state["random_cuda"] is not None:  # a run may change its device
            torch.cuda.set_rng_state(state["random_cuda"], self.device)

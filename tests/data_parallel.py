"""Run by torchrun: each process writes the gradients of its share of one batch."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from tests.test_training import Noise, purnet_trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    trainer, batches = purnet_trainer(accelerator, Noise())
    trainer.network.eval()  # each process would have BatchNorm statistics of its own
    trainer._backward(next(batches.ahead(0, 1)), batches.names)
    trainer._average_gradients()
    gradients = {n: p.grad for n, p in trainer.network.named_parameters()}
    torch.save(gradients, folder / f"{accelerator.num_processes}-{accelerator.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

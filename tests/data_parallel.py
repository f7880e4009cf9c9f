"""Run by torchrun: each process writes the gradients of its share of one batch."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from tests.test_training_loop import gradients


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    found = gradients(accelerator)
    torch.save(found, folder / f"{accelerator.num_processes}-{accelerator.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What tests of training share: a tiny recipe, and the command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from hqsod.models.purnet import build_purnet
from hqsod.training import loop
from hqsod.training.batches import Batches, StoredImages
from hqsod.training.purnet import PurNetTask
from hqsod.training.purnet_recipe import Augmentation, PurNetRecipe
from hqsod.training.recipes import read_recipe
from hqsod.training.store import Store
from hqsod.training.trainer import Trainer

SETTINGS = {
    "network.backbone": '"light"',
    "network.width": "8",
    "network.frozen": "0",
    "data.size": "64",
    "data.superpixels": "20",
    "data.holdout": "0.3",
    "optimizer.warmup": "2",
    "pace.log": "1",
    "pace.checkpoint": "2",
    "pace.validation": "3",
    "stage1.size": "48",
    "stage1.structural_similarity": "true",
    "stage2.size": "64",
    "stage3.size": "64",
    "stage1.start": "random",
    **{
        f"stage{n}.{key}": value
        for n in (1, 2, 3)
        for key, value in (("steps", "6"), ("batch", "4"))
    },
}
CHANGES = [f"{key}={value}" for key, value in SETTINGS.items()]


def command(data: Path, out: Path, *more: str) -> list[str]:
    changes = [part for change in CHANGES for part in ("--set", change)]
    arguments = ["train", str(data), "--out", str(out), "--recipe", "quick", *changes, *more]
    return [sys.executable, "-m", "hqsod", *arguments, "--device", "cpu"]


def torchrun(processes: int) -> list[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launch, f"--nproc-per-node={processes}"]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "HQSOD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def finish(line: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, env=environment(cache), capture_output=True, text=True, check=False)


def kill_when(line: list[str], cache: Path, appeared: Path) -> None:
    """Start the command and end it with SIGKILL as soon as a file has appeared."""
    with subprocess.Popen(
        line, env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not appeared.exists():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)


def losses(folder: Path) -> list[dict[str, float]]:
    """The lines of a log without how long they took."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def noise_store(count: int = 5, side: int = 32) -> Store:
    random = np.random.default_rng(0)
    arrays = {
        "image": random.integers(0, 256, (count, side, side, 3), np.uint8),
        "mask": random.integers(0, 2, (count, side, side), np.uint8) * 255,
        "superpixels": random.integers(0, 9, (count, side, side), np.int16),
    }
    return Store(tuple(f"image{i}" for i in range(count)), arrays, np.arange(count), {})


class Noise(StoredImages):
    """Images without files."""

    def __init__(self) -> None:
        super().__init__(noise_store(), Augmentation())


def tiny() -> PurNetRecipe:
    recipe = read_recipe("quick", CHANGES)
    assert isinstance(recipe, PurNetRecipe)
    return recipe


def purnet_trainer(
    accelerator: Accelerator, data: StoredImages, stage: str = "stage3"
) -> tuple[Trainer, Batches]:
    recipe = tiny()
    torch.manual_seed(0)
    network = build_purnet("light", width=8, attention=recipe.attention(stage))
    task = PurNetTask(network, recipe.stages[stage], data, noise_store(0))
    settings = recipe.loop(stage)
    return Trainer(task, settings, accelerator), loop._batches(task, settings, accelerator)

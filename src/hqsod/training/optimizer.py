"""The optimizer, how its learning rate changes, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hqsod.training.settings import LoopSettings, Optimizer

WARMUP_PART = 6  # a warm-up takes at most one of so many parts of a stage


def make_optimizer(parts: Mapping[str, nn.Module], settings: LoopSettings) -> torch.optim.Optimizer:
    """Two groups for each part: its weights, and its biases, without decay, at their own rate."""
    chosen = settings.optimizer
    groups = []
    for name, rate in settings.rates.items():
        named = list(parts[name].named_parameters())
        biases = [p for n, p in named if n.endswith("bias")]
        others = [p for n, p in named if not n.endswith("bias")]
        groups += [
            {"params": others, "base": rate, "weight_decay": chosen.weight_decay},
            {"params": biases, "base": rate * chosen.bias_rate, "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    if chosen.kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=chosen.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def rate_factor(optimizer: Optimizer, step: int, steps: int) -> float:
    """Factor on every learning rate at a step counted from 0: warm-up, then the schedule."""
    warmup = min(optimizer.warmup, steps // WARMUP_PART)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    part = (step - warmup) / max(steps - warmup, 1)
    if optimizer.schedule == "poly":
        return float((1 - part) ** 0.9)
    return (1 + math.cos(math.pi * part)) / 2 if optimizer.schedule == "cosine" else 1.0


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Running average of weights and BatchNorm statistics, quick to follow at the start."""

    def average(kept: Any, current: Any, count: Any) -> None:  # types as torch's own
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(now)(kept, current, count)  # type: ignore[no-untyped-call]  # torch's

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)

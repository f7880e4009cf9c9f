"""Refiners in PyTorch: CascadePSP, and the steps of the small refiner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hqsod import weights
from hqsod.errors import WeightsError
from hqsod.inference.cascade_refiner import CascadeRefiner
from hqsod.inference.contour_step import ContourStep
from hqsod.inference.mending_step import MendingStep
from hqsod.inference.runtime import Runtime
from hqsod.inference.small_refiner import CONTOUR, MENDING, SmallRefiner, Step
from hqsod.inference.torch_devices import DTYPES, optimise
from hqsod.inference.torch_pass import TorchPass
from hqsod.models.cascadepsp import build_cascadepsp
from hqsod.models.compact_refiner import (
    CompactRefiner,
    build_compact_refiner,
    is_compact_refiner,
)
from hqsod.models.contour_refiner import (
    ContourRefiner,
    build_contour_refiner,
    is_contour_refiner,
)
from hqsod.models.passes import ContourPass, MendPass


def load_in_torch(
    name: str, path: Path, digest: str, runtime: Runtime
) -> SmallRefiner | CascadeRefiner:
    """Load a refiner from a checkpoint.

    Args:
        name: what users call it.
        path: the checkpoint.
        digest: its SHA-256.
        runtime: where it runs, and its precision.

    Raises:
        WeightsError: damaged, or of no refiner that is known here.
    """
    device, precision = torch.device(runtime.device), DTYPES[runtime.precision]
    state = weights.load(path)
    mending, contour = part_of(state, MENDING), part_of(state, CONTOUR)
    steps: list[Step] = []
    if is_compact_refiner(mending):
        steps.append(mending_step(build_compact_refiner(mending), device, precision))
    if is_contour_refiner(contour):
        steps.append(contour_step(build_contour_refiner(contour), device, precision))
    if steps:
        return SmallRefiner(name, digest, steps)
    try:
        network = build_cascadepsp(state)
    except WeightsError as error:
        raise WeightsError(
            f"{name}: {error.got}",
            expected="weights of CascadePSP, or of a small refiner made for this version of hqsod",
            fix="hqsod train PAIRS --recipe contour makes the latter",
        ) from error
    return CascadeRefiner(name, digest, optimise(network, device, precision))


def mending_step(
    network: CompactRefiner, device: torch.device, precision: torch.dtype
) -> MendingStep:
    """The first step with a network, which becomes the step's own: its BatchNorm is folded."""
    mend = MendPass(optimise(network, device, precision))
    return MendingStep(TorchPass(mend, device), network.stride)


def contour_step(
    network: ContourRefiner, device: torch.device, precision: torch.dtype
) -> ContourStep:
    """The second step with a network, which becomes the step's own: its BatchNorm is folded."""
    draw = ContourPass(optimise(network, device, precision))
    return ContourStep(TorchPass(draw, device), network.stride, network.margin, str(device))


def part_of(state: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    """The tensors of one network; all of them where a checkpoint holds but one."""
    prefix = f"{name}."
    part = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    return part or state

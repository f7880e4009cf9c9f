"""The build job's own cost: what it takes around the networks.

    python benchmarks/build.py [--pairs 3]

Builds the demo's pairs with SwinIR-L and CascadePSP of random weights (the time does not depend on
them) and compares the seconds inside the networks with the whole run's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch

from common import ROOT, machine, report
from hqsod.building.engines import load_engine
from hqsod.building.pipeline import build
from hqsod.building.recipes import RECIPES
from hqsod.dataset.layouts import find_pairs
from hqsod.dataset.manifest import Manifest
from hqsod.inference.runtime import choose_runtime

sys.path.insert(0, str(ROOT / "demo"))
import make_pairs

from tests.golden import deterministic

CHECKPOINTS = {"upscaler": ("swinir", "real_sr_L"), "refiner": ("cascadepsp", None)}


def random_checkpoint(network: str, part: str | None, folder: Path) -> str:
    """A checkpoint in the official naming, drawn from its names."""
    shapes = json.loads((ROOT / f"tests/golden/{network}_checkpoint_shapes.json").read_text())
    drawn = {
        name: torch.from_numpy(deterministic.tensor(name, tuple(shape)))
        for name, shape in (shapes[part] if part else shapes).items()
        if not name.endswith(("relative_position_index", "attn_mask"))
    }
    path = folder / f"{network}.pth"
    torch.save(drawn, path)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pairs.main(folder / "source")
        paths = {role: random_checkpoint(*what, folder) for role, what in CHECKPOINTS.items()}
        runtime = choose_runtime("cpu")
        engines = load_engine(replace(RECIPES["duts-hq"], **paths), runtime)
        pairs = find_pairs(folder / "source")[: arguments.pairs]
        start = perf_counter()
        build(pairs, folder / "dest", engines)
        whole = perf_counter() - start
        with Manifest.open(folder / "dest") as manifest:
            seconds = [record.seconds for record in manifest.latest().values()]
    networks = sum(step["upscale"] + step["refine"] + step["predict"] for step in seconds)
    report(
        "build",
        {
            "machine": machine("pillow", "opencv-python-headless"),
            "precision": runtime.precision,
            "pairs": len(seconds),
            "seconds_per_picture": {
                key: round(sum(step[key] for step in seconds) / len(seconds), 3)
                for key in seconds[0]
            },
            "whole_seconds": round(whole, 2),
            "overhead_share": round(1 - networks / whole, 4),
        },
    )


if __name__ == "__main__":
    main()

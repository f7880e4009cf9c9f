"""PurNet's table of parts: what each attention, the structural similarity loss and the number of
superpixels are worth, at one budget, with several seeds.

    python benchmarks/parts.py DATA --out runs/parts       # writes results/parts.json
    python benchmarks/parts.py DATA --out runs/parts --set stage1.steps=1000 --seeds 1 --print-only

Every variant is a training of the same recipe with a few settings changed; scores are those of the
held-out images at its end, and of the test sets that `--tests` names once all are trained. A table
that was broken off goes on where it was, training by training.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from common import machine, report
from hqsod.training.checkpoints import read_log
from hqsod.training.job import train
from hqsod.training.plan import TrainingPlan
from hqsod.training.recipes import read_recipe
from trainings import Scores, over_seeds, tested

PLAIN = [f"stage{n}.structural_similarity=false" for n in (1, 2, 3)]
SIMILARITY = [f"stage{n}.structural_similarity=true" for n in (1, 3)]  # as in the paper
FIRST = "no attention"  # its first stage is that of all without structural similarity
VARIANTS = {
    FIRST: [*PLAIN, "network.attention=[]"],
    "promotion": [*PLAIN, 'network.attention=["promotion"]'],
    "rectification": [*PLAIN, 'network.attention=["rectification"]'],
    "both": PLAIN,
    "both, structural similarity, 100 superpixels": [*SIMILARITY, "data.superpixels=100"],
    "both, structural similarity, 200 superpixels": [*SIMILARITY, "data.superpixels=200"],
    "both, structural similarity, 400 superpixels": [*SIMILARITY, "data.superpixels=400"],
}


def folder(options: argparse.Namespace, variant: str, seed: int) -> Path:
    """Where one training is kept."""
    out: Path = options.out / variant.replace(", ", "-").replace(" ", "-") / f"seed{seed}"
    return out


def trained(options: argparse.Namespace, variant: str, seed: int) -> Path:
    """The folder of one training, which is done only once."""
    out = folder(options, variant, seed)
    first = folder(options, FIRST, seed) / "stage1"
    if VARIANTS[variant][: len(PLAIN)] == PLAIN and first.is_dir() and not out.exists():
        shutil.copytree(first, out.with_suffix(".part") / "stage1")
        out.with_suffix(".part").rename(out)
    recipe = read_recipe(options.recipe, [*VARIANTS[variant], *options.set, f"seed={seed}"])
    train(TrainingPlan(data=options.data, recipe=recipe), out, resume=True)
    return out


def held_out(run: Path) -> Scores:
    """Scores of the held-out images after the last stage."""
    lines = read_log(run / "stage3/log.jsonl")
    last = next(line for line in reversed(lines) if "validation/mae" in line)
    return {n.removeprefix("validation/"): v for n, v in last.items() if n != "step"}


def on_tests(
    options: argparse.Namespace, runs: dict[str, list[Path]]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Scores of every variant by test set."""
    networks = {
        f"{variant}-{seed}": run / "purnet.safetensors"
        for variant, folders in runs.items()
        for seed, run in enumerate(folders)
    }
    found = tested(networks, options.tests, None, options.out / "tests", ())
    return {
        dataset: {
            variant: over_seeds([scores[f"{variant}-{seed}"] for seed in range(options.seeds)])
            for variant in runs
        }
        for dataset, scores in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument(
        "--set", action="append", default=[], help="of the recipe, for all variants"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tests", type=Path, nargs="+", default=[])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    runs: dict[str, list[Path]] = {variant: [] for variant in options.only}
    for seed in range(options.seeds):  # so that a table broken off has all variants
        for variant, done in runs.items():
            done.append(trained(options, variant, seed))
    result = {
        "machine": machine("accelerate"),
        "recipe": [options.recipe, *options.set],
        "seeds": options.seeds,
        "mean and standard deviation": {
            "held-out images": {v: over_seeds(list(map(held_out, r))) for v, r in runs.items()},
            **(on_tests(options, runs) if options.tests else {}),
        },
    }
    report("parts", result, write=not options.print_only)


if __name__ == "__main__":
    main()

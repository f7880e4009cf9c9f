"""PurNet's table of parts: what each attention, the structural similarity loss and the number of
superpixels are worth, at one budget, with several seeds.

    python benchmarks/parts.py DATA --out runs/parts       # writes results/parts.json
    python benchmarks/parts.py DATA --out runs/parts --set stage1.steps=1000 --seeds 1 --print-only

Every variant is a training of the same recipe with a few settings changed; scores are those of the
held-out images at its end. A table that was broken off goes on where it was, training by training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from common import machine, report
from hqsod.training.checkpoints import read_log
from hqsod.training.job import train
from hqsod.training.plan import TrainingPlan
from hqsod.training.recipes import read_recipe

PLAIN = [f"stage{n}.structural_similarity=false" for n in (1, 2, 3)]
SIMILARITY = [f"stage{n}.structural_similarity=true" for n in (1, 3)]  # as in the paper
VARIANTS = {
    "no attention": [*PLAIN, "network.attention=[]"],
    "promotion": [*PLAIN, 'network.attention=["promotion"]'],
    "rectification": [*PLAIN, 'network.attention=["rectification"]'],
    "both": PLAIN,
    "both, structural similarity, 100 superpixels": [*SIMILARITY, "data.superpixels=100"],
    "both, structural similarity, 200 superpixels": [*SIMILARITY, "data.superpixels=200"],
    "both, structural similarity, 400 superpixels": [*SIMILARITY, "data.superpixels=400"],
}


def scores(options: argparse.Namespace, variant: str, seed: int) -> dict[str, float]:
    """Scores of the held-out images after one training, which is done only once."""
    out = options.out / variant.replace(", ", "-").replace(" ", "-") / f"seed{seed}"
    recipe = read_recipe(options.recipe, [*VARIANTS[variant], *options.set, f"seed={seed}"])
    train(TrainingPlan(data=options.data, recipe=recipe), out, resume=True)
    lines = read_log(out / "stage3/log.jsonl")
    last = next(line for line in reversed(lines) if "validation/mae" in line)
    return {n.removeprefix("validation/"): v for n, v in last.items() if n != "step"}


def summary(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard deviation of each score over the seeds."""
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    return {
        name: [round(mean(values), 4), round(stdev(values), 4) if len(values) > 1 else 0.0]
        for name, values in columns.items()
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
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    table = {
        variant: summary([scores(options, variant, seed) for seed in range(options.seeds)])
        for variant in options.only
    }
    result = {
        "machine": machine("accelerate"),
        "recipe": [options.recipe, *options.set],
        "seeds": options.seeds,
        "mean and standard deviation on held-out images": table,
    }
    report("parts", result, write=not options.print_only)


if __name__ == "__main__":
    main()

"""Do high-quality masks help? A network trained on `masks` and on `hq-masks` of a built data set.

    python benchmarks/hq_masks.py DUTS-HQ --tests DUTS-TE ECSSD DAVIS --out runs/hq

For each seed two trainings see the same images in the same order from the same start; only the
masks differ. Both are tested at the size they are trained at and at one larger. Reported are
means and deviations over the seeds, and of the differences within a seed the mean and its standard
error. A comparison that was broken off goes on where it was. `--kinds masks` trains one half alone,
so that two processes can share the work; without it both are trained, and tested.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import machine, report
from hqsod.export_onnx import export_onnx
from hqsod.training.job import train
from hqsod.training.plan import TrainingPlan
from hqsod.training.recipes import read_recipe
from trainings import AT_CONTOURS, Scores, over_seeds, tested

KINDS = ("masks", "hq-masks")
# The recipe's first stage alone, at the size of its last, since small images would hide what finer
# masks show; as many steps as six trainings can have in two hours of two cores: an epoch is 640.
CHANGES = ("stage1.size=288", "stage1.steps=480", "optimizer.warmup=50", "optimizer.average=0.99")
LARGER = 352  # one size larger than the recipe's 288: a fifth more each way


def trained(options: argparse.Namespace, kind: str, seed: int) -> Path:
    """Weights of one training, which is done only once."""
    recipe = read_recipe("purnet-light", [*CHANGES, *options.set, f"seed={seed}"])
    plan = TrainingPlan(
        data=options.data, masks=kind, recipe=recipe, stages=(1,), precision=options.precision
    )
    made = train(plan, options.out / f"{kind}-seed{seed}", resume=True).weights
    if not made.with_suffix(".onnx").is_file():
        export_onnx(made)  # predicting is twice as fast so, and there are 73,000 maps to predict
    return made


def compared(scores: dict[str, Scores], seeds: int) -> dict[str, object]:
    """Both kinds, and what hq-masks score above masks, of one test set at one size."""
    runs = {kind: [scores[f"{kind}-seed{seed}"] for seed in range(seeds)] for kind in KINDS}
    gains = [
        {measure: better[measure] - plain[measure] for measure in plain}
        for plain, better in zip(runs["masks"], runs["hq-masks"], strict=True)
    ]
    error = {name: round(s / seeds**0.5, 4) for name, (_, s) in over_seeds(gains).items()}
    gained = {name: [m, error[name]] for name, (m, _) in over_seeds(gains).items()}
    both = {kind: over_seeds(scored) for kind, scored in runs.items()}
    return {**both, "hq-masks above masks, with standard error": gained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--tests", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--set", action="append", default=[], help="more changes to the recipe")
    parser.add_argument("--precision", default="auto", help="as `hqsod train` takes it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--larger", type=int, default=LARGER)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    networks = {
        f"{kind}-seed{seed}": trained(options, kind, seed)
        for seed in range(options.seeds)
        for kind in options.kinds
    }
    if set(options.kinds) != set(KINDS):
        return
    result: dict[str, object] = {
        "machine": machine("accelerate"),
        "recipe": ["purnet-light", *CHANGES, *options.set],
        "seeds": options.seeds,
    }
    for size in (None, options.larger):
        for name, scores in tested(
            networks, options.tests, size, options.out / "tests", AT_CONTOURS
        ).items():
            result[f"{name}, {size or 'own size'}"] = compared(scores, options.seeds)
    report("hq_masks", result, write=not options.print_only)


if __name__ == "__main__":
    main()

"""Every figure the project claims, from one command.

    python benchmarks/run.py                                   # prints what was last measured
    python benchmarks/run.py --measure                         # measures first, for an hour or two
    python benchmarks/run.py --measure --only swinir purnet
    python benchmarks/run.py --measure --masks DATA --photographs PHOTOS --scenes DAVIS --duts DUTS

Each benchmark writes `benchmarks/results/NAME.json` with the machine, the versions and the commit
it ran with; this one prints the claims among them, and writes `results/claims.json`. Those that
need data of your own run where their folder is given: pictures with masks (`refiner`, `ranking`),
sharp photographs (`upscaler`), scenes with masks (`saliency`), DUTS-TR itself (`faults`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from common import RESULTS, machine, report

HERE = Path(__file__).parent
SCRIPTS = {  # and the folder each needs
    "swinir": None,
    "cascadepsp": None,
    "purnet": None,
    "metrics": None,
    "build": None,
    "serve": None,
    "floors": None,
    "upscaler": "photographs",
    "refiner": "masks",
    "ranking": "masks",
    "saliency": "scenes",
    "faults": "duts",
}


class Claim(NamedTuple):
    """A figure: what it says, where it stands, and what was aimed at."""

    text: str
    file: str
    path: tuple[str | int, ...]
    aim: str


TIMES = "times as fast"
PREDICTION, STEP = "prediction at 320 x 320", "stage 3 step, two pictures"
SSL = "structural similarity loss, two pictures"
SPANDREL = "times_as_fast_as_spandrel_float32"
PACKAGE = "canvas_times_as_fast_as_segmentation_refinement_float32"
SMALL, LIGHT = "hqsod-refiner-small", "purnet-light"
SCENES = "mean and deviation over scenes"
CLAIMS = (
    Claim("SwinIR-L against spandrel, float32", "swinir", (SPANDREL, "hqsod_float32"), ">= 1.3"),
    Claim("SwinIR-L against spandrel, bf16", "swinir", (SPANDREL, "hqsod_bf16"), ">= 3"),
    Claim(
        "CascadePSP against its package, float32",
        "cascadepsp",
        (PACKAGE, "hqsod_float32", "processor"),
        ">= 1.3",
    ),
    Claim(
        "CascadePSP against its package, bf16",
        "cascadepsp",
        (PACKAGE, "hqsod_bf16", "processor"),
        ">= 3",
    ),
    Claim("the build's cost around its networks", "build", ("overhead_share",), "< 0.1"),
    Claim("PurNet predicts, float32", "purnet", (PREDICTION, TIMES, "float32"), ">= 1.5"),
    Claim("PurNet predicts, bf16", "purnet", (PREDICTION, TIMES, "bf16"), ">= 4"),
    Claim("structural similarity loss", "purnet", (SSL, TIMES, "hqsod"), ">= 10"),
    Claim("PurNet trains, float32", "purnet", (STEP, TIMES, "float32"), ">= 1.5"),
    Claim("five scores, 400 x 300, soft maps", "metrics", ("one_core", 0, "ratio"), ">= 8"),
    Claim("five scores, 400 x 300, noise", "metrics", ("one_core", 1, "ratio"), ">= 8"),
    Claim("five scores, 400 x 300, masks", "metrics", ("one_core", 2, "ratio"), ">= 8"),
    Claim("five scores, 1600 x 1600, soft maps", "metrics", ("one_core", 3, "ratio"), ">= 8"),
    Claim("small upscaler over bicubic, dB", "upscaler", ("bf16", "clean", "gain"), ">= 1"),
    Claim(
        "small refiner, share of error gone",
        "refiner",
        (SMALL, "damaged", "gone_together"),
        ">= 0.3",
    ),
    Claim("small refiner, masks made worse", "refiner", (SMALL, "damaged", "worse"), "<= 0.1"),
    Claim("small refiner, gain in mBA", "refiner", (SMALL, "damaged", "mba_gain", 0), ">= 5"),
    Claim("light PurNet, S over scenes", "saliency", (LIGHT, SCENES, "s_measure", 0), "> 0.75"),
    Claim("light PurNet, weighted F", "saliency", (LIGHT, SCENES, "f_weighted", 0), "> 0.6"),
    Claim("damaged masks in the first tenth", "ranking", ("mean as shipped", "both"), ">= 0.9"),
)


def measure(name: str, folder: Path | None) -> None:
    line = [sys.executable, str(HERE / f"{name}.py"), *([str(folder)] if folder else [])]
    print("+", " ".join(line), flush=True)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def value(claim: Claim) -> object:
    """What was measured; None where it has not been."""
    file = RESULTS / f"{claim.file}.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    for key in claim.path:
        found = found[key]
    return found


def show(values: dict[Claim, object]) -> None:
    table = Table("claim", "measured", "aim", "from", box=SIMPLE)
    for claim, found in values.items():
        measured = "not measured" if found is None else str(found)
        table.add_row(claim.text, measured, claim.aim, f"results/{claim.file}.json")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    for folder in sorted({folder for folder in SCRIPTS.values() if folder}):
        parser.add_argument(f"--{folder}", type=Path)
    options = parser.parse_args()
    for name in options.only if options.measure else ():
        folder = getattr(options, SCRIPTS[name]) if SCRIPTS[name] else None
        if folder or not SCRIPTS[name]:
            measure(name, folder)
        else:
            print(f"{name}: left out, it needs --{SCRIPTS[name]}")
    values = {claim: value(claim) for claim in CLAIMS}
    show(values)
    claims = [{"claim": c.text, "aim": c.aim, "measured": found} for c, found in values.items()]
    report("claims", {"machine": machine(), "claims": claims})


if __name__ == "__main__":
    main()

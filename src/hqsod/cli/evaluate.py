"""`hqsod evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hqsod.cli.root import app
from hqsod.errors import InputError, SettingsError
from hqsod.types import GROUND_TRUTH_THRESHOLD, MASK_THRESHOLD

if TYPE_CHECKING:
    from hqsod.evaluate.report import Evaluation

LISTED = 20  # problems of one kind that are printed where there is a report that holds them all
WIDE = 200  # columns; a narrow terminal wraps a long table, where rich would cut numbers off


Predictions = Annotated[
    list[str],
    typer.Option(help="[METHOD=]DIR of saliency maps; again for each method.", metavar="DIR"),
]
GroundTruths = Annotated[
    list[str],
    typer.Option(
        help="[DATASET=]DIR of ground truths; again for each data set. With several, each --pred "
        "folder holds one folder for each data set.",
        metavar="DIR",
    ),
]
Name = Annotated[str | None, typer.Option(help="The method's name, of a single --pred.")]
Dataset = Annotated[str | None, typer.Option(help="The data set's name, of a single --gt.")]
ProtocolName = Annotated[str, typer.Option(help="standard or purnet.")]
Also = Annotated[str, typer.Option(help="Further measures: ber,iou,dice,mba,biou,msiou.")]
GtThreshold = Annotated[int, typer.Option(help="Ground truth above this level is foreground.")]
Threshold = Annotated[int, typer.Option(help="Level at which --also cuts maps.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Score what matches, whatever else is wrong.")
]
Resize = Annotated[bool, typer.Option("--resize", help="Bring maps to their ground truths' sizes.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; one for each core by default.")
]
Compare = Annotated[str | None, typer.Option(help="Show a published table beside: purnet-paper.")]
Out = Annotated[
    Path | None, typer.Option(help="Report: a folder, or a file ending in .html, .csv or .tex.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write scores as JSON.")]


@app.command()
def evaluate(
    pred: Predictions,
    gt: GroundTruths,
    name: Name = None,
    dataset: Dataset = None,
    protocol: ProtocolName = "standard",
    also: Also = "",
    gt_threshold: GtThreshold = GROUND_TRUTH_THRESHOLD,
    threshold: Threshold = MASK_THRESHOLD + 1,
    allow_missing: AllowMissing = False,
    resize: Resize = False,
    workers: Workers = None,
    compare: Compare = None,
    out: Out = None,
    json_file: JsonFile = None,
) -> None:
    """Score saliency maps against ground truths, and report."""
    from hqsod.evaluate import evaluate as run
    from hqsod.evaluate import ground_truth_folder, report
    from hqsod.images import write_bytes
    from hqsod.metrics import PROTOCOLS, Settings

    measures = tuple(dict.fromkeys(part.strip() for part in also.split(",") if part.strip()))
    if protocol not in PROTOCOLS:
        raise SettingsError(f"--protocol {protocol}", expected=" or ".join(PROTOCOLS))
    settings = Settings(protocol, measures, gt_threshold, threshold)
    predictions = _named(pred, name, "--name", lambda folder: folder.resolve().name)
    truths = _named(
        gt, dataset, "--dataset", lambda f: ground_truth_folder(f).resolve().parent.name
    )
    truths = {key: ground_truth_folder(folder) for key, folder in truths.items()}
    published = report.load_published(compare, truths) if compare else report.Published()
    if out:
        report.check_out(out)
    found = run(predictions, truths, settings, resize=resize, workers=workers)
    found = replace(found, published=published)
    _print_problems(found, allowed=allow_missing)
    _print_scores(found)
    if json_file:
        write_bytes(json_file, json.dumps(found.as_json(), indent=1, ensure_ascii=False).encode())
    for path in report.write_report(found, out) if out else ():
        typer.echo(f"wrote {path}")


def _named(
    given: Sequence[str], name: str | None, option: str, default: Callable[[Path], str]
) -> dict[str, Path]:
    """Folders by name, from `DIR` and `NAME=DIR`."""
    if name is not None and len(given) > 1:
        raise SettingsError(
            f"{option} with {len(given)} folders", expected="one", fix="write NAME=DIR for each"
        )
    named: dict[str, Path] = {}
    for text in given:
        left, equals, right = text.partition("=")
        is_named = equals and not Path(text).is_dir()
        folder = Path(right if is_named else text).expanduser()
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        key = name or (left if is_named else default(folder))
        if key in named:
            raise SettingsError(
                f"two folders named {key}", expected="a name for each", fix="write NAME=DIR"
            )
        named[key] = folder
    return named


def _print_problems(found: Evaluation, *, allowed: bool) -> None:
    """List what was not scored; raise where nothing was said about it."""
    by_kind: dict[tuple[str, str, str], list[str]] = {}
    for dataset, method, problem in found.problems:
        line = f"{problem.file}: {problem.detail}"
        by_kind.setdefault((dataset, method, problem.kind), []).append(line)
    for (dataset, method, kind), lines in by_kind.items():
        listed = lines[:LISTED] if allowed else lines
        for line in listed:
            typer.echo(f"{kind}: {dataset}: {method}: {line}")
        if more := len(lines) - len(listed):
            typer.echo(f"{kind}: {dataset}: {method}: and {more} more")
    if by_kind and not allowed:
        kinds = sorted({kind for _, _, kind in by_kind})
        raise InputError(
            f"{len(found.problems)} files could not be scored ({', '.join(kinds)})",
            expected="one readable map of the same size for each ground truth",
            fix="mend them, or pass --resize for sizes and --allow-missing for the rest",
        )


def _print_scores(found: Evaluation) -> None:
    from hqsod.evaluate.report import terminal_table

    console = Console(width=WIDE)
    for dataset, data in found.datasets.items():
        console.print(terminal_table(found, dataset))
        for method, result in data.methods.items():
            pr = ", ".join(f"{key} {value:.4f}" for key, value in result.f_from_mean_pr.items())
            scored = f"{len(result.per_image)} of {len(data.ground_truths)} scored"
            typer.echo(f"{method}: {scored}; from the mean precision-recall curve: {pr}")
            if not result.curves["recall"].any():
                typer.echo(f"{method}: no ground truth has foreground; see --gt-threshold")
    for topic, said in found.settings.items():
        typer.echo(f"{topic}: {said}")
    if found.published.source:
        typer.echo(
            f"published rows, not measured here: {found.published.source}; "
            f"its evaluation is the {found.published.protocol} protocol"
        )

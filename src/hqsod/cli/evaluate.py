"""`hqsod evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from hqsod.cli.root import app
from hqsod.errors import InputError, SettingsError, printable
from hqsod.masks import GROUND_TRUTH_THRESHOLD, MASK_THRESHOLD

if TYPE_CHECKING:
    from hqsod.evaluate.report import Evaluation
    from hqsod.metrics import Protocol

LISTED = 20  # files of one kind that are printed where there is a report that holds them all
WIDE = 200  # columns; a narrow terminal wraps a long table, where rich would cut numbers off


Predictions = Annotated[
    list[str],
    typer.Option(help="[METHOD=]DIR of saliency maps; once for each method.", metavar="DIR"),
]
GroundTruths = Annotated[
    list[str],
    typer.Option(
        help="[DATASET=]DIR of ground truths; once for each data set. With several, each --pred "
        "folder holds one folder for each data set.",
        metavar="DIR",
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the method, if there is one --pred.")]
Dataset = Annotated[str | None, typer.Option(help="Name of the data set, if there is one --gt.")]
ProtocolName = Annotated[str, typer.Option(help="standard or purnet.")]
Also = Annotated[str, typer.Option(help="Further measures: ber,iou,dice,mba,biou,msiou.")]
GtThreshold = Annotated[int, typer.Option(help="Ground truth above this level is foreground.")]
Threshold = Annotated[int, typer.Option(help="Level from which a pixel is salient for --also.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Score what can be scored, and list the rest.")
]
Resize = Annotated[
    bool, typer.Option("--resize", help="Resize maps to the sizes of their ground truths.")
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        help="[DATASET=]DIR of photographs for the report, if they are not beside the ground "
        "truths.",
        metavar="DIR",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of processes; one for each core by default.")
]
Compare = Annotated[
    str | None, typer.Option(help="Published rows to show as well: purnet-paper or networks.")
]
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
    images: Images = None,
    workers: Workers = None,
    compare: Compare = None,
    out: Out = None,
    json_file: JsonFile = None,
) -> None:
    """Score saliency maps against ground truths, and report."""
    from hqsod.evaluate import dataset_name, report
    from hqsod.evaluate import evaluate as run
    from hqsod.metrics import ScoreSettings

    measures = tuple(dict.fromkeys(part.strip() for part in also.split(",") if part.strip()))
    known = cast("Protocol", protocol)  # `ScoreSettings` refuses any other
    settings = ScoreSettings(known, measures, gt_threshold, threshold, resize)
    predictions = _named(pred, name, "--name", lambda folder: folder.resolve().name)
    truths = _named(gt, dataset, "--dataset", dataset_name)
    only = next(iter(truths)) if len(truths) == 1 else None
    photographs = _named(images or [], None, "--images", lambda f: only or f.resolve().name)
    if out:
        report.check_out(out)
    found = run(predictions, truths, settings, images=photographs, compare=compare, workers=workers)
    if not allow_missing:
        _print_unscored(found)
        found.require_complete()
    # Files first: whatever becomes of the terminal, the scores are there.
    written = report.write_report(found, out) if out else []
    if json_file:
        report.write_json(found, json_file)
    if allow_missing:
        _print_unscored(found, LISTED)
    _print_scores(found)
    for path in written:
        _say(f"wrote {path}")


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


def _say(line: str) -> None:
    typer.echo(printable(line))  # names of files and folders are in it


def _print_unscored(found: Evaluation, most: int | None = None) -> None:
    """List what was not scored, at most `most` files of one kind."""
    by_kind: dict[str, list[str]] = {}
    for dataset, method, file in found.unscored:
        lines = by_kind.setdefault(f"{file.kind}: {dataset}: {method}", [])
        lines.append(f"{file.file}: {file.reason}")
    for kind, lines in by_kind.items():
        for line in lines[:most]:
            _say(f"{kind}: {line}")
        if most is not None and len(lines) > most:
            _say(f"{kind}: and {len(lines) - most} more")


def _print_scores(found: Evaluation) -> None:
    from hqsod.evaluate.report import terminal_table

    console = Console(width=WIDE)
    for dataset, data in found.datasets.items():
        console.print(terminal_table(found, dataset))
        for method, result in data.methods.items():
            _say(f"{method}: {len(result.per_image)} of {len(data.ground_truths)} scored")
            if not result.curves["recall"].any():
                _say(f"{method}: no ground truth that was scored has foreground")
    for topic, said in found.settings.items():
        _say(f"{topic}: {said}")
    for source, methods in found.sources.items():
        _say(f"published, not measured here: {', '.join(methods)}: {source}")

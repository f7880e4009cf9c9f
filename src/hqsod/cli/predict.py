"""`hqsod predict` and `hqsod export`."""

from __future__ import annotations

import sys
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsod import extras
from hqsod.cli.root import Batch, Device, Overwrite, Precision, Size, Weights, app, finish
from hqsod.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from hqsod.predict import Predictor

STANDARD = "-"  # in place of paths: from standard input to standard output

SHAPING, CUT_OUTS = "Options for maps and everything drawn from them", "Options for cut-outs"
Refine = Annotated[
    bool,
    typer.Option(
        "--refine",
        help="Redraw the maps' edges at the image's own size.",
        rich_help_panel=SHAPING,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Make maps black and white: 255 above this share of 255, such as 0.5; 0 elsewhere.",
        rich_help_panel=SHAPING,
    ),
]
DropIslands = Annotated[
    float | None,
    typer.Option(
        help="Drop parts smaller than this share of the largest part, such as 0.1.",
        rich_help_panel=SHAPING,
    ),
]
Cutout = Annotated[
    bool,
    typer.Option(
        "--cutout",
        help="Also cut objects out, as RGBA; so does each of these options.",
        rich_help_panel=CUT_OUTS,
    ),
]
Matting = Annotated[
    bool,
    typer.Option(
        "--matting",
        help="Set the edge's opacity by closed-form matting, for hair; takes seconds.",
        rich_help_panel=CUT_OUTS,
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        help="Lay the object on a colour, such as white or #ffcc00, or on an image.",
        rich_help_panel=CUT_OUTS,
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        help="Crop to the object, with this many pixels around it.", rich_help_panel=CUT_OUTS
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="png, webp or jpg, which needs a background; by default png.",
        rich_help_panel=CUT_OUTS,
    ),
]


@app.command()
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS",
            help="Images, folders or patterns; - reads one image from standard input.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the maps; cut-outs and overlays go to folders in it."),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option("--recursive", help="Also search subfolders; OUT gets the same subfolders."),
    ] = False,
    weights: Weights = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also lay maps over their images.")
    ] = False,
    size: Size = None,
    batch: Batch = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
    refine: Refine = False,
    threshold: Threshold = None,
    drop_islands: DropIslands = None,
    cutout: Cutout = False,
    matting: Matting = False,
    crop: Crop = None,
    background: Background = None,
    file_format: Format = None,
) -> None:
    """Predict saliency maps: OUT/STEM.png, as large as the image."""
    from hqsod import predict as job
    from hqsod.cutout import CutOut
    from hqsod.image_jobs import find_inputs

    settings = CutOut(
        refine=refine,
        threshold=threshold,
        drop_islands=drop_islands,
        matting=matting,
        background=_colour_or_path(background),
        crop=crop,
        format=file_format or "png",
    )
    cutout = cutout or matting or (crop, background, file_format) != (None, None, None)
    kinds = [kind for kind, wanted in {"cutouts": cutout, "overlays": overlay}.items() if wanted]
    predictor = job.Predictor(weights, size=size, batch=batch, device=device, precision=precision)
    if STANDARD in paths:
        _require_one_result(paths, out, kinds)
        _announce(predictor)
        _write(job.predict_one(sys.stdin.buffer, predictor, (kinds or ["maps"])[0], settings))
        return
    if out is None:
        raise SettingsError("no --out", expected="the folder that the maps go to")
    found = find_inputs(paths, recursive=recursive, apart=out)
    _announce(predictor)
    kinds = ["maps", *kinds]
    finish(job.predict(found, out, predictor, kinds=kinds, settings=settings, overwrite=overwrite))


def _colour_or_path(background: str | None) -> str | Path | None:
    """A colour as it is; any other text as the path of an image.

    Raises:
        SettingsError: it is neither.
    """
    from hqsod.cutout import read_colour

    if background is None or read_colour(background) is not None:
        return background
    if not isfile(background):  # noqa: PTH113 (Path's raises where a name is too long)
        raise SettingsError(
            f"--background {background}",
            expected="a colour such as white or #ffcc00, or the file of an image",
        )
    return Path(background)


def _announce(predictor: Predictor) -> None:
    """Say what predicts; on standard error, for standard output may be an image."""
    from hqsod.inference.saliency import about

    typer.echo(f"weights: {about(predictor.network)}", err=True)


def _require_one_result(paths: list[str], out: Path | None, kinds: list[str]) -> None:
    """Check that standard input is all there is to read, and standard output can take the result.

    Raises:
        SettingsError: it is not.
    """
    if len(paths) > 1 or out is not None:
        raise SettingsError(
            "- with other paths or --out", expected="- alone", fix="redirect standard output"
        )
    if len(kinds) > 1:
        raise SettingsError(
            "--cutout and --overlay with -", expected="one result", fix="leave one out"
        )
    if sys.stdout.isatty():
        raise SettingsError(
            "an image for the terminal", expected="a file", fix="redirect with > FILE"
        )


def _write(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from error


@app.command()
def export(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="Whatever --weights of predict takes, or a small upscaler's or refiner's file.",
        ),
    ],
    onnx: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; by default beside the weights. A small refiner gets one for "
            "each step: NAME.mending.onnx and NAME.contour.onnx."
        ),
    ] = None,
) -> None:
    """Write a network as ONNX, for images of any size, checked against PyTorch."""
    extras.require("onnx", "hqsod export")
    from hqsod.export_onnx import export_onnx

    for made in export_onnx(weights, onnx):
        typer.echo(
            f"{made.file}: {made.file.stat().st_size / 1e6:.1f} MB; on {made.compared} noise "
            f"inputs it differs from PyTorch by at most {made.difference:.1e} with the same 16-bit "
            f"weights, and by at most {made.rounding:.1e} with the original weights"
        )

"""What an ordinary installation does without PyTorch, and what it says of the rest.

Each test runs in a process of its own, in which PyTorch cannot be imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hqsod.cli import app
from hqsod.images import read_image, read_mask
from tests.conftest import write_pair
from tests.golden import inputs

LEFT_OUT = ("torch", "accelerate", "skimage", "scipy", "pymatting", "numba", "onnx", "onnxscript")


def without_torch(
    code: str, *arguments: object, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({LEFT_OUT})); "
    command = [sys.executable, "-c", blocked + code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def hqsod(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return without_torch("from hqsod.cli import main; main()", *arguments, folder=folder)


def test_an_image_is_predicted_and_cut_out(tmp_path: Path):
    inputs.photo("chelsea").save(tmp_path / "cat.jpg")
    answer = hqsod("predict", tmp_path / "cat.jpg", "--out", tmp_path / "out", "--cutout")
    assert answer.returncode == 0, answer.stderr
    assert "on ONNX Runtime (CPU), float32" in answer.stderr
    assert read_mask(tmp_path / "out" / "cat.png").max() > 200
    assert (tmp_path / "out" / "cutouts" / "cat.png").is_file()


def test_a_data_set_is_built(tmp_path: Path):
    """With the default networks, to the bytes that float32 gives where PyTorch is installed."""
    for stem in ("chelsea", "coffee"):
        write_pair(tmp_path / "data", stem, stem, 150)
    answer = hqsod("build", tmp_path / "data", tmp_path / "hq")
    assert answer.returncode == 0, answer.stderr
    assert "float32" in answer.stdout
    assert read_image(tmp_path / "hq/images/coffee.png").shape == (1600, 1600, 3)
    command = ["build", tmp_path / "data", tmp_path / "again", "--precision", "float32"]
    assert CliRunner().invoke(app, list(map(str, command))).exit_code == 0
    for file in ("images/coffee.png", "hq-masks/coffee.png", "hq-masks/chelsea.png"):
        assert (tmp_path / "hq" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_single_steps_run(tmp_path: Path):
    inputs.photo("chelsea").reduce(4).save(tmp_path / "cat.png")
    inputs.photo("chelsea").save(tmp_path / "large.png")
    inputs.mask("chelsea").save(tmp_path / "mask.png")
    for command in (
        ["upscale", "cat.png", "--out", "upscaled"],
        ["refine", "large.png", "mask.png", "--out", "refined"],
        ["predict", "large.png", "--out", "maps", "--refine"],
    ):
        answer = hqsod(*command, folder=tmp_path)
        assert answer.returncode == 0, answer.stderr
    assert len(list(tmp_path.glob("*/*.png"))) == 3


def test_maps_are_scored(tmp_path: Path):
    for folder in ("maps", "truths"):
        (tmp_path / folder).mkdir()
        inputs.mask("chelsea").save(tmp_path / folder / "cat.png")
    scores = tmp_path / "scores.json"
    answer = hqsod(
        "evaluate", "--pred", tmp_path / "maps", "--gt", tmp_path / "truths", "--json", scores
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(scores.read_text())


@pytest.mark.parametrize(
    "modules",
    [
        "hqsod, hqsod.predict, hqsod.cutout, hqsod.check, hqsod.evaluate, hqsod.export_dataset",
        "hqsod.serve.app, hqsod.serve.service, hqsod.review.app, hqsod.review.apply",
    ],
)
def test_these_need_none(modules: str):
    answer = without_torch(f"import {modules}")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["upscale", "a.jpg", "--out", "out", "--upscaler", "swinir-l"], "torch"),
        (["upscale", "a.jpg", "--out", "out", "--upscaler", "own.pth"], "torch"),
        (["upscale", "a.jpg", "--out", "out", "--precision", "bf16"], "torch"),
        (["refine", "a.jpg", "a.jpg", "--out", "out", "--refiner", "own.pth"], "torch"),
        (["train", "data", "--out", "out"], "train"),
        (["export", "purnet-light"], "onnx"),
        (["weights", "convert", "a.pth", "b.safetensors"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--precision", "bf16"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--weights", "own.pth"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--device", "cuda"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--matting"], "matting"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_what_needs_torch_says_so_in_a_line(arguments: list[str], extra: str, tmp_path: Path):
    for name in ("own.pth", "a.jpg"):
        (tmp_path / name).write_bytes(b"never opened")
    answer = hqsod(*arguments, folder=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.rstrip().endswith(f"pip install 'hqsod[{extra}]'")
    assert {path.name for path in tmp_path.iterdir()} == {"own.pth", "a.jpg"}, "no work was begun"

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

from hqsod.images import read_mask
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
        (["build", "data", "out"], "torch"),
        (["upscale", "a.jpg", "--out", "out"], "torch"),
        (["refine", "a.jpg", "a.png", "--out", "out"], "torch"),
        (["train", "data", "--out", "out"], "train"),
        (["export", "purnet-light"], "onnx"),
        (["weights", "convert", "a.pth", "b.safetensors"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--precision", "bf16"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--weights", "own.pth"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--refine"], "torch"),
        (["predict", "a.jpg", "--out", "out", "--matting"], "matting"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_what_needs_torch_says_so_in_a_line(arguments: list[str], extra: str, tmp_path: Path):
    (tmp_path / "own.pth").write_bytes(b"never opened")
    answer = hqsod(*arguments, folder=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.rstrip().endswith(f"pip install 'hqsod[{extra}]'")
    assert [path.name for path in tmp_path.iterdir()] == ["own.pth"], "no work was begun"

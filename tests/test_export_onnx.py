"""An exported graph computes what PyTorch computes, for any size, or is not written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from typer.testing import CliRunner

from hqsod import export_onnx, weights
from hqsod.cli import app
from hqsod.errors import InputError, OutputError, SettingsError, WeightsError
from hqsod.inference import saliency
from hqsod.predict import Predictor
from tests.golden import inputs
from tests.networks import save_tiny, tiny_purnet

pytestmark = pytest.mark.slow  # one export takes half a minute


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def exported(tiny: Path) -> tuple[Path, str]:
    """The file, and what the command said."""
    file = tiny.with_name("tiny.onnx")
    answer = CliRunner().invoke(app, ["export", str(tiny), "--onnx", str(file)])
    assert answer.exception is None
    return file, answer.output


def test_the_command_says_how_close_it_is(exported: tuple[Path, str]):
    file, said = exported
    assert said.startswith(f"{file}: largest difference from PyTorch ")
    assert said.count("\n") == 1
    assert sorted(path.name for path in file.parent.iterdir()) == ["tiny.onnx", "tiny.safetensors"]


def test_the_graph_is_free_in_batch_height_and_width(exported: tuple[Path, str]):
    session = InferenceSession(exported[0])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 1, "height", "width"]
    network = tiny_purnet()
    for batch, height, width in ((1, 64, 64), (5, 31, 98), (1, 3, 3), (2, 500, 20)):
        images = np.random.default_rng(1).random((batch, 3, height, width), np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(images)).numpy()
        got = session.run(["saliency"], {"image": images})[0]
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported: tuple[Path, str]):
    model = onnx.load(exported[0])
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["size"] == "64"
    digest = weights.sha256(exported[0].with_suffix(".safetensors"))
    assert about["weights"] == f"tiny.safetensors sha256 {digest}"
    assert {"hqsod", "input", "output"} <= set(about)
    data = exported[0].read_bytes()
    assert b"stack_trace" not in data
    assert b"site-packages" not in data
    assert b"purnet.py" not in data


def test_predict_runs_it(tiny: Path, exported: tuple[Path, str]):
    onnx_predictor = Predictor(exported[0])
    assert onnx_predictor.size == 64
    assert "ONNX Runtime" in onnx_predictor.network.about
    photo = inputs.photo("coffee")
    wanted = Predictor(tiny, precision="float32")(photo)
    np.testing.assert_allclose(onnx_predictor(photo), wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(SettingsError, match="float32"):
        Predictor(exported[0], precision="bf16")(photo)
    with pytest.raises(SettingsError, match="CUDA"):
        Predictor(exported[0], device="cuda")(photo)


def test_a_graph_that_differs_is_not_written(
    tiny: Path, tmp_path: Path, exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
):
    model = onnx.load(exported[0])
    monkeypatch.setattr(export_onnx, "_graph", lambda _: model)
    network = tiny_purnet()
    with torch.no_grad():
        network.purificatory.decoder.lateral[0][0].weight.mul_(1.01)
    monkeypatch.setattr(export_onnx, "load_weights", lambda _: (network, 64))
    (tmp_path / "x.onnx").write_bytes(b"what was there")
    with pytest.raises(OutputError, match="differs from PyTorch"):
        export_onnx.export_onnx(tiny, tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    assert (tmp_path / "x.onnx").read_bytes() == b"what was there"


def test_other_onnx_files_are_refused(tmp_path: Path, exported: tuple[Path, str]):
    model = onnx.load(exported[0])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(WeightsError, match="hqsod export"):
        saliency.open_onnx(tmp_path / "foreign.onnx")
    (tmp_path / "torn.onnx").write_bytes(exported[0].read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"torn\.onnx"):
        saliency.open_onnx(tmp_path / "torn.onnx")


def test_what_cannot_be_exported_is_refused(tiny: Path, tmp_path: Path, exported: tuple[Path, str]):
    with pytest.raises(InputError, match=r"\.onnx"):
        export_onnx.export_onnx(tiny, tmp_path / "x.pb")
    with pytest.raises(InputError, match="is an ONNX file"):
        export_onnx.export_onnx(exported[0], tmp_path / "x.onnx")


def test_without_the_packages_the_extra_is_named(
    tiny: Path, exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for package in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=r"hqsod\[onnx\]"):
        export_onnx.export_onnx(tiny, tmp_path / "x.onnx")
    with pytest.raises(SettingsError, match=r"hqsod\[onnx\]"):
        saliency.open_onnx(exported[0])


def test_a_device_that_is_none_is_refused(exported: tuple[Path, str]) -> None:
    with pytest.raises(SettingsError, match="cuda:N"):
        saliency.open_onnx(exported[0], "gpu")


def test_the_network_that_ships_can_be_exported(tmp_path: Path) -> None:
    file = tmp_path / "light.onnx"
    check = export_onnx.export_onnx(saliency.DEFAULT, file)
    assert check.difference < 1e-4
    photo = inputs.photo("chelsea")
    wanted = Predictor(precision="float32")(photo)
    np.testing.assert_allclose(Predictor(file)(photo), wanted, atol=1e-3)

"""An exported graph computes what PyTorch computes, for any size, or is not written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.helper import make_node
from onnx.numpy_helper import from_array, to_array
from onnxruntime import InferenceSession
from typer.testing import CliRunner

from hqsod import export_graphs, export_onnx, weights
from hqsod.cli import app
from hqsod.errors import InputError, OutputError, SettingsError, WeightsError
from hqsod.images import Array
from hqsod.inference import torch_refiner, torch_upscaler
from hqsod.inference.contour_step import ContourStep
from hqsod.inference.onnx_network import OnnxNetwork
from hqsod.inference.onnx_session import OnnxSession, open_session
from hqsod.inference.refiner import load_refiner
from hqsod.inference.runtime import Runtime
from hqsod.inference.saliency import DEFAULT, find_weights, load_network
from hqsod.inference.scaling import prepare
from hqsod.inference.small_refiner import exported_steps
from hqsod.inference.torch_network import TorchNetwork, load_weights
from hqsod.inference.torch_pass import TorchPass
from hqsod.inference.upscaler import load_upscaler
from hqsod.models.blocks import fold
from hqsod.models.contour_refiner import ContourRefiner
from hqsod.predict import Predictor
from hqsod.weights import Origin
from tests.golden import inputs
from tests.networks import save_tiny, tiny_purnet

SAME = 0.02  # of a probability: weights of 16 bits beside those of 32


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def exported(tiny: Path) -> tuple[Path, str]:
    """The file, and what the command said; takes half a minute."""
    answer = CliRunner().invoke(app, ["export", str(tiny)])
    assert answer.exception is None
    return tiny.with_suffix(".onnx"), answer.output


def test_the_command_says_how_close_it_is(exported: tuple[Path, str]):
    file, said = exported
    assert said.startswith(f"{file}: ")
    assert "differs from PyTorch by at most" in said
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
        np.testing.assert_allclose(got, wanted, rtol=0, atol=SAME)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported: tuple[Path, str]):
    model = onnx.load(exported[0])
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["size"] == "64"
    digest = weights.sha256(exported[0].with_suffix(".safetensors"))
    assert about["weights"] == f"tiny.safetensors sha256 {digest}"
    assert {"hqsod", "input", "output"} <= set(about)
    data = exported[0].read_bytes()
    assert len(data) < 0.7 * exported[0].with_suffix(".safetensors").stat().st_size
    assert b"stack_trace" not in data
    assert b"site-packages" not in data
    assert b"purnet.py" not in data


def test_predict_runs_it(tiny: Path, exported: tuple[Path, str]):
    onnx_predictor = Predictor(exported[0])
    assert onnx_predictor.size == 64
    assert "ONNX Runtime" in onnx_predictor.network.runs_on
    photo = inputs.photo("coffee")
    network, _ = load_weights(tiny)
    shown = prepare(np.asarray(photo), 64)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(shown).permute(2, 0, 1)[None] / 255)[:, 0].numpy()
    np.testing.assert_allclose(onnx_predictor.maps([shown]), wanted, rtol=0, atol=SAME)
    with pytest.raises(SettingsError, match="float32"):
        Predictor(exported[0], precision="bf16")(photo)
    with pytest.raises(SettingsError, match="CUDA"):
        Predictor(exported[0], device="cuda")(photo)


def test_a_graph_that_differs_is_not_written(
    tiny: Path, tmp_path: Path, exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
):
    model = onnx.load(exported[0])
    monkeypatch.setattr(export_onnx, "_graph", lambda *_: model)
    monkeypatch.setattr(export_onnx, "_halved", lambda model: model)
    network = tiny_purnet()
    with torch.no_grad():
        network.purificatory.decoder.lateral[0][0].weight.mul_(1.01)
    sources = [replace(export_graphs.find_sources(tiny)[0], network=fold(network))]
    monkeypatch.setattr(export_onnx, "find_sources", lambda _: sources)
    (tmp_path / "x.onnx").write_bytes(b"what was there")
    with pytest.raises(OutputError, match="differs from PyTorch"):
        export_onnx.export_onnx(tiny, tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    assert (tmp_path / "x.onnx").read_bytes() == b"what was there"


def changed(exported: Path, file: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """A copy of an exported file with something else in it."""
    model = onnx.load(exported)
    change(model)
    onnx.save(model, file)
    return file


def with_size(model: onnx.ModelProto, size: str) -> None:
    next(entry for entry in model.metadata_props if entry.key == "size").value = size


def with_nan(model: onnx.ModelProto) -> None:
    weight = next(w for w in model.graph.initializer if w.name.endswith(".16"))
    weight.CopyFrom(from_array(np.full_like(to_array(weight), np.nan), weight.name))


def with_scalar(model: onnx.ModelProto) -> None:
    name = model.graph.output[0].name
    model.graph.output[0].name = "average"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.node.append(make_node("ReduceMean", [name], ["average"], keepdims=0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.ClearField("metadata_props"), "hqsod export"),
        (with_scalar, "its output average is float32"),
        (lambda model: with_size(model, "abc"), "'abc'"),
        (lambda model: with_size(model, "-4"), "'-4'"),
        (lambda model: with_size(model, "9" * 99), "'99999"),
        (with_nan, "not numbers"),
    ],
)
def test_files_that_cannot_be_right_are_refused(
    tmp_path: Path,
    exported: tuple[Path, str],
    change: Callable[[onnx.ModelProto], object],
    said: str,
):
    file = changed(exported[0], tmp_path / "x.onnx", change)
    with pytest.raises(WeightsError, match=said):
        Predictor(file)(np.zeros((9, 9, 3), np.uint8))


def test_a_torn_file_is_refused(tmp_path: Path, exported: tuple[Path, str]):
    (tmp_path / "torn.onnx").write_bytes(exported[0].read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"torn\.onnx"):
        open_session(tmp_path / "torn.onnx")


def test_what_cannot_be_exported_is_refused(tiny: Path, tmp_path: Path, exported: tuple[Path, str]):
    with pytest.raises(InputError, match=r"\.onnx"):
        export_onnx.export_onnx(tiny, tmp_path / "x.pb")
    with pytest.raises(InputError, match="is an ONNX file"):
        export_onnx.export_onnx(exported[0], tmp_path / "x.onnx")


def test_a_cpu_runs_what_lies_beside_the_weights_unless_it_is_of_others(
    tiny: Path, tmp_path: Path, exported: tuple[Path, str]
):
    for file in (tiny, exported[0]):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    ours = tmp_path / tiny.name
    assert isinstance(load_network(ours, "cpu", "auto"), OnnxNetwork)
    assert isinstance(load_network(ours, "cpu", "bf16"), TorchNetwork)
    weights.save(ours, tiny_purnet().state_dict(), {"size": "96"})
    assert isinstance(load_network(ours, "cpu", "auto"), TorchNetwork)


def test_the_upscaler_that_ships_is_the_exported_one():
    """Made by `hqsod export hqsod-x4-small`, which must be run whenever the weights change."""
    path = weights.resolve("hqsod-x4-small")
    ours = load_upscaler("hqsod-x4-small", Runtime())
    assert isinstance(ours.network, OnnxSession)
    image = np.asarray(inputs.photo("chelsea").reduce(3))
    wanted = torch_upscaler.load_in_torch("x", path, "", Runtime())([image])[0]
    assert_alike(ours([image])[0], wanted)


def test_the_refiner_that_ships_is_the_exported_one():
    """Made by `hqsod export hqsod-refiner-small`, which must be run whenever the weights change."""
    path = weights.resolve("hqsod-refiner-small")
    ours = load_refiner("hqsod-refiner-small", Runtime())
    theirs = torch_refiner.load_in_torch("x", path, "", Runtime())
    image, mask = np.asarray(inputs.photo("coffee")), np.array(inputs.mask("coffee"))
    mask[:, : mask.shape[1] // 2] = 0  # for the first step to mend
    for step, exact in zip(ours.steps, theirs.steps, strict=True):
        assert (step(image, mask) != mask).any()
        assert_alike(step(image, mask), exact(image, mask))


def test_a_checkpoint_of_one_step_runs_exported_until_its_weights_change(tmp_path: Path):
    file = tmp_path / "contour.safetensors"
    weights.save(file, ContourRefiner((8, 12)).eval().state_dict(), {})
    export_onnx.export_onnx(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "contour.contour.onnx",
        "contour.safetensors",
    ]
    (step,) = exported_steps(file, weights.sha256(file))
    assert isinstance(step, ContourStep)
    assert exported_steps(file, "of others") == []
    shutil.copy(file.with_suffix(".contour.onnx"), file.with_suffix(".mending.onnx"))
    assert exported_steps(file, weights.sha256(file)) == [], "a step that the checkpoint has not"


def test_what_another_program_laid_beside_weights_is_passed_over(tmp_path: Path, capsys):
    file = tmp_path / "own.safetensors"
    shutil.copy(weights.resolve("hqsod-x4-small"), file)
    (tmp_path / "own.onnx").write_bytes(b"not ours")
    upscaler = load_upscaler(str(file), Runtime())
    assert isinstance(upscaler.network, TorchPass)
    assert "PyTorch runs own.safetensors instead" in capsys.readouterr().err
    with pytest.raises(WeightsError, match="an ONNX file; expected the weights"):
        load_upscaler(str(tmp_path / "own.onnx"), Runtime())


def test_other_networks_are_not_exported(tmp_path: Path):
    file = tmp_path / "other.safetensors"
    weights.save(file, {"body.0.weight": torch.zeros(3, 3)}, {})
    with pytest.raises(WeightsError, match="expected a PurNet, a small upscaler or"):
        export_onnx.export_onnx(file)


def assert_alike(got: Array, wanted: Array) -> None:
    """To a level, but for few pixels: weights of 16 bits beside those of 32."""
    off = np.abs(got.astype(int) - wanted)
    assert off.mean() < 0.05
    assert np.quantile(off, 0.99) <= 1


def test_the_network_that_ships_is_the_exported_one():
    """Made by `hqsod export purnet-light`, which must be run whenever the weights change."""
    source = find_weights(DEFAULT)
    exported = source.with_suffix(".onnx")
    assert exported.stat().st_size < 10e6
    light = load_network(DEFAULT, "cpu", "auto")
    assert isinstance(light, OnnxNetwork)
    assert light.session.about["weights"] == f"{source.name} sha256 {weights.sha256(source)}"
    image = prepare(np.asarray(inputs.photo("chelsea")), light.size)[None]
    exact = TorchNetwork(source, Origin("", ""), "cpu", "float32")(image)
    assert exact.std() > 0.1
    off = np.abs(light(image) - exact)
    assert off.mean() < 0.001
    assert np.quantile(off, 0.99) < SAME

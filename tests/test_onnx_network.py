"""Networks of others: images prepared and maps read as their facts say, or a clear refusal."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
    set_model_props,
)
from onnx.numpy_helper import from_array
from PIL import Image
from typer.testing import CliRunner

from hqsod import weights
from hqsod.building.engines import load_engine
from hqsod.building.recipes import BuildRecipe
from hqsod.cli import app
from hqsod.cutout import PLAIN
from hqsod.dataset.citations import citations
from hqsod.errors import SettingsError, WeightsError
from hqsod.images import read_map
from hqsod.inference.runtime import Runtime
from hqsod.inference.upscaler import load_upscaler
from hqsod.predict import Predictor, draw, read
from tests.conftest import random_picture, save
from tests.golden import inputs
from tests.test_serve import serving

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Facts(NamedTuple):
    """What a network's makers publish; `lightest`: levels are divided by the image's highest."""

    side: int
    mean: tuple[float, ...] = IMAGENET[0]
    deviation: tuple[float, ...] = IMAGENET[1]
    logits: bool = False
    lightest: bool = True
    method: Image.Resampling = Image.Resampling.LANCZOS


FACTS = {
    "u2net": Facts(320),
    "u2netp": Facts(320),
    "silueta": Facts(320),
    "u2net-human": Facts(320),
    "isnet-general-use": Facts(1024, (0.5,) * 3, (1.0,) * 3),
    "isnet-anime": Facts(1024, deviation=(1.0,) * 3),
    **{
        f"birefnet-{kind}": Facts(1024, logits=True)
        for kind in ("general", "general-lite", "portrait", "dis", "hrsod", "cod", "massive")
    },
    "ben2": Facts(1024, (0.0,) * 3, (1.0,) * 3, False, False, Image.Resampling.BILINEAR),
}
RELEASES = {
    "ben2": "https://huggingface.co/PramaLLC/BEN2/resolve/main/",
    **dict.fromkeys(
        FACTS.keys() - {"ben2"}, "https://github.com/danielgatis/rembg/releases/download/v0.0.0/"
    ),
}
FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


def save_network(
    path: Path,
    shape: tuple = (1, 3, 64, 64),
    *,
    logits: bool = False,
    dtype: int = FLOAT,
    channels: int = 1,
    others: tuple[str, ...] = (),
) -> Path:
    """A network whose map is a weighted sum of the channels, with a decoy as its second output."""
    mix = np.resize(np.float32([0.9, -0.5, 0.3]), (channels, 3, 1, 1)) * (3 if logits else 1)
    made = dtype if dtype == FLOAT16 else FLOAT
    numbers = from_array(mix.astype(np.float16 if made == FLOAT16 else np.float32), "mix")
    nodes = [
        make_node("Cast", ["img"], ["numbers"], to=made),
        make_node("Conv", ["numbers", "mix"], ["sum"]),
        make_node("Identity" if logits else "Sigmoid", ["sum"], ["map"]),
        make_node("Neg", ["map"], ["decoy"]),
    ]
    out = (shape[0], channels, *shape[2:])
    graph = make_graph(
        nodes,
        "tiny",
        [make_tensor_value_info(name, dtype, shape) for name in ("img", *others)],
        [make_tensor_value_info(name, made, out) for name in ("map", "decoy")],
        [numbers],
    )
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def published(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny network at hand under a published name."""
    facts = FACTS[name]
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(folder))
    shape = (1, 3, facts.side, facts.side)
    path = save_network(folder / "tiny.onnx", shape, logits=facts.logits)
    digest = "md5:" + hashlib.md5(path.read_bytes()).hexdigest()
    entry = replace(weights.registry()[name], file=path.name, digest=digest)
    monkeypatch.setattr(weights, "registry", lambda: {name: entry})
    return path


def as_published(path: Path, name: str, photo: Image.Image) -> np.ndarray:
    """The map by plain NumPy, Pillow and ONNX Runtime, in [0, 1], at the network's size."""
    facts = FACTS[name]
    shown = np.array(photo.resize((facts.side, facts.side), facts.method))
    scaled = (shown / (shown.max() if facts.lightest else 255) - facts.mean) / facts.deviation
    given = scaled.transpose(2, 0, 1)[None].astype(np.float32)
    made = onnxruntime.InferenceSession(path).run(None, {"img": given})[0][0, 0].astype(float)
    made = 1 / (1 + np.exp(-made)) if facts.logits else made
    return (made - made.min()) / (made.max() - made.min())


def brought_back(
    saliency: np.ndarray, method: Image.Resampling, size: tuple[int, int]
) -> np.ndarray:
    """A map at its image's size; bilinear as in PyTorch, which does not smooth what it shrinks."""
    if method == Image.Resampling.BILINEAR:
        return cv2.resize(saliency, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(saliency).resize(size, method))


@pytest.mark.parametrize("name", FACTS)
def test_a_published_network_is_used_as_its_facts_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = published(name, tmp_path, monkeypatch)
    photo = inputs.photo("chelsea").point(lambda level: level * 0.7)  # not up to 255
    save(tmp_path / "photo.png", np.asarray(photo))
    predictor = Predictor(name)
    wanted = as_published(path, name, photo)
    seen = read(predictor, tmp_path / "photo.png")
    small = predictor.maps([seen.prepared])[0]
    np.testing.assert_allclose(small, wanted, atol=2e-5)
    large = brought_back(wanted.astype(np.float32), FACTS[name].method, photo.size)
    off = np.abs(draw("maps", seen, small, PLAIN) - np.clip(large, 0, 1) * 255.0)
    assert off.max() < 0.51, "nothing but the rounding to levels"


def test_facts_licences_and_citations_stand_for_all():
    others = {n: file for n, file in weights.registry().items() if file.preparation is not None}
    assert others.keys() == FACTS.keys()
    for name, file in others.items():
        assert file.size > 0
        assert file.licence in ("Apache-2.0", "MIT")
        assert file.citation in citations()
        assert file.urls == (RELEASES[name] + file.file,)


def test_published_scores_stand_in_the_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    listed = CliRunner().invoke(app, ["weights", "list"]).output.splitlines()
    (line,) = (line for line in listed if " u2net " in line)
    assert "176 MB" in line
    assert "U²-Net, salient objects; Apache-2.0; DUTS-TE: weighted F .804, S .861" in line


def describe(path: Path, *options: str) -> str:
    answer = CliRunner().invoke(app, ["weights", "describe", str(path), *options])
    if answer.exception:
        raise answer.exception
    return answer.output


def test_any_network_is_described_once_and_used(tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx", logits=True)
    photo = save(tmp_path / "in" / "a.png", random_picture((40, 50, 3)))
    command = ["predict", str(photo), "--weights", str(path), "--out", str(tmp_path / "out")]
    with pytest.raises(
        WeightsError, match=r"hqsod weights describe .*mine\.onnx --mean"
    ) as refusal:
        Predictor(path)(photo)
    assert "\n" not in str(refusal.value)
    said = describe(path, "--mean", "128", "--std", "200,250,256", "--divisor", "1")
    assert "images of 64 x 64" in said
    assert "so they are logits" in said
    assert CliRunner().invoke(app, command).exit_code == 0
    shown = np.array(Image.open(photo).resize((64, 64), Image.Resampling.BILINEAR))
    given = ((shown - 128.0) / (200, 250, 256)).transpose(2, 0, 1)[None].astype(np.float32)
    logits = onnxruntime.InferenceSession(path).run(["map"], {"img": given})[0][0, 0]
    wanted = Image.fromarray(1 / (1 + np.exp(-logits))).resize((50, 40), Image.Resampling.BOX)
    assert read_map(tmp_path / "out" / "a.png").shape == (40, 50)
    saliency = Predictor(path)(photo)
    assert np.abs(saliency - np.asarray(wanted)).mean() < 0.1
    np.testing.assert_allclose(
        Predictor(path)(shown), 1 / (1 + np.exp(-logits.astype(float))), atol=1e-5
    )


@pytest.mark.parametrize("dtype", [FLOAT, FLOAT16, UINT8])
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), ("n", 3, "h", "w"), (1, 3, None, None)])
def test_types_free_sizes_and_batches(dtype: int, shape: tuple, tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx", shape, dtype=dtype)
    describe(path, "--divisor", "255", "--size", "64")
    images = np.stack([random_picture((64, 64, 3), seed) for seed in range(3)])
    given = images.transpose(0, 3, 1, 2).astype(np.float32) / (1 if dtype == UINT8 else 255)
    wanted = 1 / (1 + np.exp(-np.einsum("c,bchw->bhw", [0.9, -0.5, 0.3], given)))
    maps = Predictor(path, batch=3)(list(images))
    np.testing.assert_allclose(maps, wanted, atol=2e-3 if dtype == FLOAT16 else 1e-5)
    free = Predictor(path, size=96)
    if shape[2] == 64:
        with pytest.raises(SettingsError, match="size 96; expected 64, which"):
            free(images[0])
    else:
        assert free.size == 96
        assert free(images[0]).shape == (64, 64)


def test_the_ending_may_be_in_capitals(tmp_path: Path):
    path = save_network(tmp_path / "MINE.ONNX")
    describe(path)
    assert Predictor(path)(random_picture((9, 9, 3))).shape == (9, 9)


def test_another_output_can_be_the_map(tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx")
    assert "so they are logits" in describe(path, "--output", "decoy")
    assert json.loads((tmp_path / "mine.onnx.json").read_text())["output"] == "decoy"
    with pytest.raises(WeightsError, match="output 'other'; expected one of map, decoy"):
        describe(path, "--output", "other")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"shape": (1, 64, 64, 3)}, r"it takes img tensor\(float\) \[1, 64, 64, 3\]; expected one"),
        ({"shape": (1, 3, 64, 96)}, "64, 96"),
        ({"shape": (2, 3, 64, 64)}, "1 or any"),
        ({"shape": (1, 3, 8, 8)}, "8, 8"),
        ({"shape": (1, 3, 9000, 9000)}, "9000"),
        ({"dtype": TensorProto.INT64}, "int64"),
        ({"others": ("points",)}, "points"),
        ({"channels": 2}, r"output map is float32 \(1, 2, 64, 64\); expected \(1, 1, height"),
        ({"shape": (1, 3, "h", "w")}, "any size; expected a size"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(network: dict, said: str, tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx", **network)
    with pytest.raises(WeightsError, match=said):
        describe(path)
    assert not (tmp_path / "mine.onnx.json").exists()


def test_a_graph_that_gives_nothing_is_refused(tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx")
    model = onnx.load(path)
    model.graph.ClearField("output")
    onnx.save(model, path)
    with pytest.raises(WeightsError, match="it gives nothing; expected an output"):
        describe(path)


@pytest.mark.parametrize(
    ("scale", "dtype", "said"),
    [("0", UINT8, "scale '0'; expected a number above 0"), ("1", FLOAT, "own.onnx: ")],
)
def test_an_upscaler_of_anybody_is_checked(scale: str, dtype: int, said: str, tmp_path: Path):
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"only its hash counts")
    ports = [make_tensor_value_info(name, dtype, ("b", "h", "w", 3)) for name in "xy"]
    graph = make_graph([make_node("Identity", ["x"], ["y"])], "own", ports[:1], ports[1:])
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=9)
    set_model_props(model, {"weights": weights.sha256(own), "scale": scale})
    onnx.save(model, tmp_path / "own.onnx")
    with pytest.raises(WeightsError, match=said):
        load_upscaler(str(own), Runtime())([random_picture((9, 9, 3))])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mean", "a"], "could not convert"),
        (["--mean", "1,2"], "not enough values"),
        (["--mean", "nan"], "finite"),
        (["--std", "0"], "above 0"),
        (["--divisor", "-1"], "above 0"),
        (["--size", "8"], "from 32 to 4096"),
    ],
)
def test_options_that_cannot_be_are_refused(options: list[str], said: str, tmp_path: Path):
    with pytest.raises(SettingsError, match=said):
        describe(save_network(tmp_path / "mine.onnx"), *options)


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ("[]", "mine.onnx.json: "),
        ('{"size": 8}', "from 32 to 4096"),
        ('{"size": 128}', "size 128; expected 64, which the graph is fixed to"),
        ('{"std": [0, 1, 1]}', "above 0"),
        ('{"mean": [NaN, 0, 0]}', "finite"),
        ('{"mean": [0, 0]}', "mean"),
        ('{"mean": 0.5}', "mean: "),
        ('{"divisor": "half"}', "divisor"),
        ('{"resampling": "box"}', "resampling: "),
        ('{"values": "levels"}', "values: "),
        ('{"command": "rm"}', "command: "),
    ],
)
def test_what_lies_beside_a_network_is_checked(beside: str, said: str, tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx")
    (tmp_path / "mine.onnx.json").write_text(beside)
    with pytest.raises(WeightsError, match=said):
        Predictor(path)(random_picture((9, 9, 3)))


def test_logits_that_are_called_probabilities_are_noticed(tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx", logits=True)
    (tmp_path / "mine.onnx.json").write_text('{"values": "probabilities"}')
    with pytest.raises(WeightsError, match="expected probabilities"):
        Predictor(path)(random_picture((9, 9, 3)))


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd"])
def test_weights_outside_the_networks_folder_are_not_read(place: str, tmp_path: Path):
    (tmp_path / "secret.bin").write_bytes(bytes(36))
    path = save_network(tmp_path / "mine.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mine.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"mine\.onnx"):
        describe(tmp_path / "in" / "mine.onnx")


@pytest.mark.parametrize("level", [0, 255])
def test_images_of_one_level_have_maps_of_numbers(
    level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    published("u2netp", tmp_path, monkeypatch)
    saliency = Predictor("u2netp")(np.full((20, 30, 3), level, np.uint8))
    assert saliency.shape == (20, 30)
    assert 0 <= saliency.min() <= saliency.max() <= 1


def test_a_build_takes_it_as_a_second_opinion_in_any_precision(tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx")
    describe(path)
    recipe = BuildRecipe("x", "bicubic", "none", str(path), canvas=None, meaning="")
    engine = load_engine(recipe, Runtime("cpu", "bf16"))
    assert engine.predictor is not None
    assert engine.predictor.size == 64
    assert engine.settings.predictor_weights == weights.sha256(path)


def test_the_service_takes_it(tmp_path: Path):
    path = save_network(tmp_path / "mine.onnx")
    (tmp_path / "mine.onnx.json").write_text('{"resampling": "lanczos", "stretched": true}')
    photo = save(tmp_path / "a.png", random_picture((40, 50, 3)))
    with serving(Predictor(path, batch=4)) as client:
        status, _, png = client.post("/saliency", photo.read_bytes())
    assert status == 200
    wanted = np.round(Predictor(path)(photo) * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), wanted)

"""Prediction equals the published network, takes whatever picture comes, and loses nothing."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import hqsod
from hqsod import machine, matting, weights
from hqsod.cli import app
from hqsod.cutout import CutOut, cut_out
from hqsod.decoding import ORIENTATION
from hqsod.errors import InputError, OutputError, SettingsError, WeightsError
from hqsod.images import find_images, read_map, read_mask
from hqsod.inference.onnx_session import open_session
from hqsod.inference.saliency import DEFAULT, find_weights, load_network
from hqsod.inference.torch_network import TorchNetwork, load_weights
from hqsod.predict import Predictor, predict, read
from tests.conftest import random_picture, save
from tests.golden import inputs
from tests.networks import save_tiny
from tests.test_purnet import OUTPUTS, checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def predictor(tiny: Path) -> Predictor:
    return Predictor(tiny, precision="float32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photographs of different sizes."""
    for name in ("chelsea", "coffee"):
        (tmp_path / "in").mkdir(exist_ok=True)
        inputs.photo(name).save(tmp_path / "in" / f"{name}.jpg")
    return tmp_path / "in"


def run(*arguments: object) -> tuple[int, str]:
    answer = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    if answer.exception and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer.exit_code, answer.output


def command(*arguments: object) -> list[str]:
    code = "from hqsod.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


@pytest.mark.slow
def test_a_published_checkpoint_predicts_as_it_always_did(tmp_path: Path):
    torch.save(checkpoint("stage2_and_3"), tmp_path / "published.pth")
    answer = CliRunner().invoke(
        app, ["weights", "convert", f"{tmp_path}/published.pth", f"{tmp_path}/ours.safetensors"]
    )
    assert "PurNet of stage 2 or 3, 35.5 M parameters" in answer.stdout
    photo = inputs.photo("chelsea").resize((320, 320), Image.Resampling.BILINEAR)
    for name in ("published.pth", "ours.safetensors"):
        saliency = Predictor(tmp_path / name, precision="float32")(photo)
        np.testing.assert_allclose(saliency, OUTPUTS["saliency1"], rtol=1e-3, atol=1e-4)
    quick = Predictor(tmp_path / "ours.safetensors", precision="bf16")(photo)
    assert np.abs(quick - saliency).mean() < 0.02


def test_only_published_checkpoints_are_converted(tiny: Path, tmp_path: Path):
    arguments = ["weights", "convert", str(tiny), str(tmp_path / "out.safetensors")]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, WeightsError)
    assert not list(tmp_path.iterdir())


@given(
    size=st.sampled_from([(1, 1), (1, 7), (5, 1), (1, 3000), (2500, 1), (3, 900), (90, 61)]),
    level=st.integers(0, 255) | st.none(),
)
def test_any_picture_has_a_map_of_its_size(
    predictor: Predictor, size: tuple[int, int], level: int | None
):
    image = random_picture((*size, 3)) if level is None else np.full((*size, 3), level, np.uint8)
    saliency = predictor(image)
    assert saliency.shape == size
    assert saliency.dtype == np.float32
    assert 0 <= saliency.min() <= saliency.max() <= 1


def test_a_path_a_pil_picture_and_an_array_are_one(predictor: Predictor, folder: Path):
    path = folder / "chelsea.jpg"
    picture = Image.open(path)
    one = predictor(np.asarray(picture))
    assert one.std() > 0.05, "the test's network must see something"
    data = path.read_bytes()
    with path.open("rb") as file:
        for same in (path, str(path), picture, data, bytearray(data), io.BytesIO(data), file):
            np.testing.assert_array_equal(predictor(same), one)
    np.testing.assert_array_equal(
        predictor(picture.convert("L")), predictor(picture.convert("L").convert("RGB"))
    )


def test_several_at_once_are_as_one_by_one(tiny: Path, folder: Path):
    paths = [folder / "chelsea.jpg", folder / "coffee.jpg", folder / "chelsea.jpg"]
    together = Predictor(tiny, precision="float32", batch=2)
    maps = together(paths)
    assert [m.shape for m in maps] == [(300, 451), (400, 600), (300, 451)]
    for path, saliency in zip(paths, maps, strict=True):
        np.testing.assert_allclose(saliency, together(path), atol=1e-5)
    assert together([]) == []


def test_the_size_is_the_weights_own_unless_told(tiny: Path, predictor: Predictor):
    image = random_picture((50, 70, 3))
    assert predictor.size == 64
    shown = np.array(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    network, _ = load_weights(tiny)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(shown).permute(2, 0, 1)[None] / 255)[0, 0].numpy()
    np.testing.assert_allclose(predictor(shown), wanted, rtol=1e-3, atol=1e-4)
    other = Predictor(tiny, size=96, precision="float32")
    assert np.abs(other(image) - predictor(image)).max() > 0.01


def test_bf16_is_close_on_photographs(tiny: Path, predictor: Predictor):
    quick = Predictor(tiny, precision="bf16")
    for name in inputs.PHOTOS:
        difference = np.abs(quick(inputs.photo(name)) - predictor(inputs.photo(name)))
        assert difference.mean() < 0.01


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(predictor: Predictor, bad: np.ndarray):
    with pytest.raises(InputError, match="uint8 RGB"):
        predictor(bad)


@pytest.mark.parametrize("given", [None, 5, {"a.jpg": 1}, [None], np.zeros((4, 4), np.uint8)])
def test_what_is_no_image_is_refused(predictor: Predictor, given: object):
    with pytest.raises(InputError, match=r"\(H, W, 3\) uint8"):
        predictor(given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 8}, "size 8"),
        ({"batch": 0}, "batch 0"),
        ({"precision": "fp8"}, "fp8"),
        ({"device": "tpu0"}, "tpu0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tiny: Path, options: dict, said: str):
    with pytest.raises(SettingsError, match=said):
        Predictor(tiny, **options)(np.zeros((8, 8, 3), np.uint8))


def test_a_precision_that_is_none_is_told_without_pytorch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SettingsError, match="--precision fp16; expected auto, float32 or bf16"):
        load_network(None, "cpu", "fp16")


def test_weights_are_found(tiny: Path, tmp_path: Path):
    data, run_folder = tiny.read_bytes(), tmp_path / "run"
    with pytest.raises(WeightsError, match="no-such-weights"):
        find_weights("no-such-weights")
    for name in ("stage1/best", "stage2/best", "best", "purnet"):
        run_folder.mkdir(exist_ok=True)
        if name == "stage1/best":
            with pytest.raises(WeightsError, match="training run"):
                find_weights(run_folder)
        path = run_folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        assert find_weights(run_folder) == path


def test_a_folder_does_not_take_the_place_of_a_network(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shipped = find_weights(None)
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).mkdir()
    assert find_weights(None) == find_weights(DEFAULT) == shipped
    shutil.copy(tiny, f"{DEFAULT}/purnet.safetensors")
    assert find_weights(f"./{DEFAULT}").name == "purnet.safetensors"


@pytest.mark.parametrize("odd", ["~nobody-by-this-name.safetensors", "w" * 300])
def test_odd_names_of_weights_and_backgrounds_are_told(odd: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WeightsError, match="no such name or file"):
        find_weights(odd)
    monkeypatch.setenv(weights.CACHE_VARIABLE, odd)
    assert weights.cache_folder() == Path(odd)
    error = CliRunner().invoke(app, ["predict", "a.jpg", "--background", odd]).exception
    assert "expected a colour" in str(error)


def test_out_of_memory_takes_fewer_at_once_and_then_says_what_to_do(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    predictor = Predictor(tiny, batch=8)
    network, black = predictor.network, np.zeros((8, 8, 3), np.uint8)
    assert isinstance(network, TorchNetwork)
    wanted, forward, most = predictor([black] * 8), network._network, 3

    def full(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(network, "_network", full)
    np.testing.assert_allclose(predictor([black] * 8), wanted, atol=1e-5)
    most = 0
    with pytest.raises(SettingsError, match="smaller --size"):
        predictor(black)


def test_the_whole_job(tiny: Path, predictor: Predictor, folder: Path, tmp_path: Path):
    (folder / "bad.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    options = ("--weights", tiny, "--precision", "float32", "--overlay", "--out", out)
    code, said = run(folder, folder / "missing.jpg", *options)
    assert code == 1
    assert f"/{tiny.name}; sha256 {weights.sha256(tiny)[:16]}; on cpu" in said
    assert "2 made, 0 kept as they were, 2 failed" in said
    assert [path.name for path in find_images(out)] == ["chelsea.png", "coffee.png"]
    assert len(find_images(out / "overlays")) == 2
    wanted = predictor(folder / "coffee.jpg")
    np.testing.assert_array_equal(read_mask(out / "coffee.png"), np.round(wanted * 255))

    (folder / "bad.jpg").unlink()
    before = (out / "coffee.png").stat().st_mtime_ns
    code, said = run(folder, *options)
    assert (code, "may be of other weights or options; --overwrite" in said) == (0, True)
    assert (out / "coffee.png").stat().st_mtime_ns == before
    code, said = run(str(folder / "c*.jpg"), *options, "--overwrite", "--batch", 2)
    assert (code, "2 made, 0 kept" in said) == (0, True)
    assert (out / "coffee.png").stat().st_mtime_ns > before


def test_orientation_is_honoured(tiny: Path, tmp_path: Path):
    photo = inputs.photo("chelsea")
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be shown after a quarter turn clockwise
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "upright.png")
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "turned.png", exif=exif)
    assert run(tmp_path / "in", "--out", tmp_path / "out", "--weights", tiny)[0] == 0
    upright, turned = (read_mask(tmp_path / "out" / f"{n}.png") for n in ("upright", "turned"))
    assert upright.shape == (photo.height, photo.width)
    np.testing.assert_array_equal(turned, upright)


def test_maps_do_not_land_on_their_pictures(tiny: Path, tmp_path: Path):
    path = save(tmp_path / "a.png", random_picture((9, 9, 3)))
    before = path.read_bytes()
    answer = CliRunner().invoke(
        app, ["predict", str(path), "--out", str(tmp_path), "--weights", str(tiny), "--overwrite"]
    )
    assert "is one of the images" in str(answer.exception)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "--out", "x"], "- alone"),
        (["-", "a.jpg"], "- alone"),
        (["-", "--cutout", "--overlay"], "one result"),
        (["a.jpg"], "--out"),
    ],
)
def test_what_cannot_go_together_is_refused(arguments: list[str], said: str):
    assert said in str(CliRunner().invoke(app, ["predict", *arguments]).exception)


@pytest.mark.slow
def test_from_standard_input_to_standard_output(tiny: Path, folder: Path, predictor: Predictor):
    options = command("predict", "-", "--weights", tiny, "--precision", "float32")
    data = (folder / "coffee.jpg").read_bytes()
    answer = subprocess.run(options, input=data, capture_output=True, check=True)
    assert answer.stderr.count(b"\n") == 1
    assert answer.stderr.startswith(b"weights: ")
    result = folder / "result.png"
    result.write_bytes(answer.stdout)
    wanted = np.round(predictor(folder / "coffee.jpg") * 255)
    np.testing.assert_array_equal(read_mask(result), wanted)

    answer = subprocess.run(options, input=b"junk", capture_output=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, b"")
    assert b"error: " in answer.stderr
    assert b"Traceback" not in answer.stderr


@pytest.mark.slow
def test_killed_and_run_again_it_ends_the_same(tiny: Path, tmp_path: Path):
    for number in range(60):
        save(tmp_path / "in" / f"{number:02}.png", random_picture((200, 200, 3), number))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = (tmp_path / "in", "--weights", tiny, "--batch", 3, "--out")
    process = subprocess.Popen(command("predict", *options, broken), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(find_images(broken) if broken.is_dir() else []) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it must not have come to its end"
    assert 4 <= len(find_images(broken)) < 60
    for part in broken.glob(".*.part"):
        os.utime(part, (0, 0))  # another run could be writing those of the last hour
    for path in find_images(broken):
        read_map(path)
    assert run(*options, broken)[0] == 0
    assert run(*options, whole)[0] == 0
    made = {path.name: path.read_bytes() for path in broken.glob("*.png")}
    assert made == {path.name: path.read_bytes() for path in whole.glob("*.png")}
    assert len(made) == 60
    assert not list(broken.glob(".*")), "parts of the killed run must be gone"


def test_the_predictor_is_looked_up_when_it_is_asked_for():
    assert hqsod.Predictor is Predictor
    with pytest.raises(AttributeError, match="predictor"):
        hqsod.predictor  # noqa: B018 (to see it fail)


def test_onnx_runtime_takes_the_threads_there_are_and_does_not_spin():
    options = open_session(find_weights(DEFAULT).with_suffix(".onnx")).get_session_options()
    assert options.intra_op_num_threads == machine.threads()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_python_cuts_out_what_the_command_does(predictor: Predictor, tiny: Path, folder: Path):
    settings = hqsod.CutOut(background="white", crop=5, threshold=0.4, drop_islands=0.2)
    path = folder / "coffee.jpg"
    cut = predictor.cut_out(path, settings)
    assert (cut.mode, predictor.cut_out(path).mode) == ("RGB", "RGBA")
    assert cut.size != Image.open(path).size
    for same in (path.read_bytes(), Image.open(path), np.asarray(Image.open(path))):
        assert predictor.cut_out(same, settings) == cut
    options = ["--background", "white", "--crop", 5, "--threshold", 0.4, "--drop-islands", 0.2]
    network = ("--weights", tiny, "--precision", "float32")
    code, said = run(folder, "--out", folder / "out", *options, *network)
    assert (code, "2 made" in said) == (0, True)
    written = Image.open(folder / "out" / "cutouts" / "coffee.png")
    np.testing.assert_array_equal(np.asarray(written), np.asarray(cut))
    assert set(np.unique(read_map(folder / "out" / "coffee.png"))) == {0, 255}


def test_without_a_predictor_the_light_network_cuts_out():
    photo = inputs.photo("chelsea")
    assert hqsod.cut_out(photo) == Predictor().cut_out(photo)


def test_a_background_is_never_replaced(tiny: Path, tmp_path: Path):
    photograph = save(tmp_path / "photos/a.png", random_picture((30, 30, 3)))
    beach = save(tmp_path / "out/a.png", random_picture((30, 30, 3)))
    before = beach.read_bytes()
    options = ("--background", beach, "--weights", tiny, "--overwrite")
    with pytest.raises(OutputError, match="is one of the images"):
        run(photograph, "--out", tmp_path / "out", *options)
    assert beach.read_bytes() == before


def test_a_pil_image_that_cannot_be_read_is_told(tiny: Path):
    buffer = io.BytesIO()
    Image.fromarray(random_picture((90, 90, 3))).save(buffer, "jpeg")
    cut = Image.open(io.BytesIO(buffer.getvalue()[:900]))
    with pytest.raises(InputError, match="the image: "):
        Predictor(tiny)(cut)


@pytest.mark.parametrize(("ending", "form"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_cut_outs_come_in_the_format_asked_for(
    tiny: Path, folder: Path, tmp_path: Path, ending: str, form: str
):
    beach = save(tmp_path / "beach.png", random_picture((30, 30, 3)))
    options = ("--background", beach, "--format", ending, "--weights", tiny)
    for made in ("2 made, 0 kept", "0 made, 2 kept"):
        code, said = run(folder, "--out", tmp_path / "out", *options)
        assert (code, made in said) == (0, True)
    files = sorted((tmp_path / "out" / "cutouts").iterdir())
    assert [file.name for file in files] == [f"chelsea.{ending}", f"coffee.{ending}"]
    assert {Image.open(file).format for file in files} == {form}
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--crop", "-3"], "crop -3"),
        (["--format", "jpg"], "expected a background"),
        (["--background", "whit"], "--background whit; expected a colour"),
        (["--background", "white", "--overlay"], "one result"),
    ],
)
def test_bad_settings_are_refused_before_work_begins(options: list[str], said: str):
    assert said in str(CliRunner().invoke(app, ["predict", "-", *options]).exception)


def test_refining_draws_the_edge_of_maps_and_cut_outs_anew(folder: Path, tmp_path: Path):
    path, out = folder / "coffee.jpg", tmp_path / "out"
    assert run(path, "--out", out, "--refine", "--cutout", "--precision", "float32")[0] == 0
    light = Predictor(precision="float32")
    image = read(light, path)
    coarse = light.maps([image.prepared])[0]
    wanted = (light.refine(image, coarse) * 255).round()
    np.testing.assert_array_equal(read_map(out / "coffee.png"), wanted)
    cut = light.cut_out(path, hqsod.CutOut(refine=True))
    assert Image.open(out / "cutouts" / "coffee.png").tobytes() == cut.tobytes()
    assert cut.tobytes() != light.cut_out(path).tobytes()


def test_empty_maps_are_said_and_counted(tiny: Path, tmp_path: Path):
    state, metadata = weights.load_with_metadata(tiny)
    state["purificatory.heads.0.6.bias"] -= 100  # nothing is salient any more
    weights.save(tmp_path / "blind.safetensors", state, metadata)
    path = save(tmp_path / "a.png", random_picture((9, 9, 3)))
    code, said = run(path, "--weights", tmp_path / "blind.safetensors", "--out", tmp_path / "out")
    assert code == 0
    assert "1 made, 0 kept as they were, 0 failed; nothing salient found in 1" in said
    code, said = run(path, "--weights", tiny, "--out", tmp_path / "high", "--threshold", 0.999)
    assert "nothing salient found in 1" in said


def test_that_nothing_is_salient_is_said_of_the_map_that_is_written(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
):
    grey = np.full((1, 64, 64), 127.1 / 255, np.float32)  # 127 when it is written
    monkeypatch.setattr(predictor, "maps", lambda _: grey)
    found = {save(tmp_path / "a.png", random_picture((9, 9, 3))): "a"}
    said = predict(found, tmp_path / "plain", predictor).remarks
    assert said == ("nothing salient found",)
    split = CutOut(threshold=0.4)
    assert predict(found, tmp_path / "split", predictor, settings=split).remarks == ()


def after_a_fork(work: Callable[[], bytes]) -> bytes:
    """What a forked process makes, or the message of its error; it must come to an end."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = work()
        except SettingsError as error:
            answer = str(error).encode()
        os.write(writing, answer)
        os._exit(0)
    os.close(writing)
    try:
        assert select.select([reading], [], [], 60)[0], "it waits for threads that are not there"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as file:
        return file.read()


def test_matting_works_after_a_fork_that_another_thread_is_matting_during():
    with matting._alone:  # as that thread holds it
        assert after_a_fork(lambda: str(matting._alone.locked()).encode()) == b"False"


def test_after_a_fork_the_light_network_works_and_pytorch_says_why_not(predictor: Predictor):
    image = random_picture((300, 400, 3))
    light = Predictor()

    def cut() -> bytes:
        return hashlib.sha256(cut_out(image, (light(image) * 255).astype(np.uint8))).digest()

    assert after_a_fork(cut) == cut()
    predictor(image)
    assert b"before this one was forked" in after_a_fork(lambda: bytes(predictor(image)))


@pytest.mark.parametrize("work", ["predictor(image)", "del predictor"])
def test_a_forked_process_does_not_wait_for_the_threads_of_its_parents_session(work: str):
    code = f"""
import os
import numpy as np
from hqsod.predict import Predictor
predictor, image = Predictor(), np.zeros((8, 8, 3), np.uint8)
predictor(image)
if not os.fork():
    {work}
    os._exit(0)
os.wait()
"""
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}  # with one there is none to wait for
    with subprocess.Popen([sys.executable, "-c", code], env=threads, process_group=0) as process:
        try:
            assert process.wait(60) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_predictor_that_was_used_can_be_sent_to_another_process():
    used, image = Predictor(size=64), random_picture((30, 40, 3))
    wanted = used(image)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(used))(image), wanted)


def test_without_weights_the_light_network_predicts(folder: Path, tmp_path: Path):
    code, said = run(folder, "--out", tmp_path / "out")
    assert code == 0
    assert f"weights: {DEFAULT}, which is small and comes with hqsod (larger: " in said
    assert len(find_images(tmp_path / "out")) == 2

"""On a GPU everything is as on a CPU: results, memory that runs out, forks, trainings that go on.

What can be tried without one is; the rest is marked `gpu`. A GPU's float32 differs from a CPU's by
more than rounding: PyTorch lets its convolutions multiply with ten bits (TF32).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn.attention import SDPBackend, sdpa_kernel

from hqsod import machine
from hqsod.errors import SettingsError
from hqsod.images import Array
from hqsod.inference.cascade_refiner import CascadeRefiner, pixels_that_fit
from hqsod.inference.memory import is_out_of_memory
from hqsod.inference.onnx_network import OnnxNetwork
from hqsod.inference.onnx_session import CUDA, open_session
from hqsod.inference.refiner import load_refiner
from hqsod.inference.runtime import Runtime
from hqsod.inference.saliency import DEFAULT, find_weights, load_network
from hqsod.inference.torch_devices import choose_device, has_native_bf16, optimise, precision_name
from hqsod.inference.torch_upscaler import torch_upscaler
from hqsod.inference.upscaler import NetworkUpscaler, load_upscaler
from hqsod.models import swinir
from hqsod.models.small_upscaler import SmallUpscaler, UpscalerSizes
from hqsod.predict import Predictor
from hqsod.training.checkpoints import restore_newest, save_state
from tests.conftest import random_picture
from tests.golden import inputs
from tests.networks import save_tiny
from tests.test_cascadepsp import small as small_cascade
from tests.test_predict import after_a_fork
from tests.test_refiner import pair
from tests.test_swinir import small as small_swinir
from tests.training_job import Noise, purnet_trainer

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PLACES = ("cpu", pytest.param("cuda", marks=gpu))
CPU, FLOAT32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16
MEGABYTE = 2**20


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    for mark in gpu:
        test = mark(test)
    return test


def photo(height: int, width: int) -> Array:
    return np.array(inputs.photo("chelsea").resize((width, height)))


def swinir_result(device: torch.device, precision: torch.dtype) -> Array:
    network = small_swinir()
    network.set_precision(precision)
    network.to(device)
    return torch_upscaler(network, 4, 4, device)([photo(60, 90)])[0]


def place(device: torch.device, precision: torch.dtype) -> Runtime:
    return Runtime(str(device), precision_name(precision))


def upscaled(device: torch.device, precision: torch.dtype) -> Array:
    return load_upscaler("hqsod-x4-small", place(device, precision))([photo(60, 90)])[0]


def cascade(device: torch.device, precision: torch.dtype, side: int) -> CascadeRefiner:
    torch.manual_seed(0)
    return CascadeRefiner("small", "", optimise(small_cascade().eval(), device, precision), side)


def cascade_result(device: torch.device, precision: torch.dtype) -> Array:
    return cascade(device, precision, 100)(*pair())


def refined(device: torch.device, precision: torch.dtype) -> Array:
    refiner = load_refiner("hqsod-refiner-small", place(device, precision))
    assert refiner is not None
    return refiner(*pair(640, 480))


def predicted(device: torch.device, precision: torch.dtype) -> Array:
    network = load_network(DEFAULT, *place(device, precision))
    return network(photo(network.size, network.size)[None])[0] * 255


RESULTS = (swinir_result, upscaled, cascade_result, refined, predicted)


@on_gpu
@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize(("precision", "mean"), [(FLOAT32, 0.25), (BF16, 1.5)])
def test_results_are_the_cpus(result: Callable[..., Array], precision: torch.dtype, mean: float):
    device = choose_device("cuda")
    if precision is BF16 and not has_native_bf16(device):
        pytest.skip("this GPU has no bf16")
    wanted, got = (
        np.asarray(r, np.float32) for r in (result(CPU, FLOAT32), result(device, precision))
    )
    assert wanted.std() > 5, "the test's network must draw something"
    assert np.abs(got - wanted).mean() < mean  # grey levels


@pytest.mark.parametrize("place", PLACES)
@torch.inference_mode()
def test_heads_are_filled_up_to_the_same_result(place: str, monkeypatch: pytest.MonkeyPatch):
    network = small_swinir(swinir.SwinIRConfig(24, (2,), (4,), 4, 24)).to(place)  # heads of 6
    image, results = torch.rand(1, 3, 16, 24, device=place), []
    for multiple in (1, 8):
        monkeypatch.setitem(swinir.HEAD_MULTIPLE, place, multiple)
        results.append(network(image))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@on_gpu
@pytest.mark.parametrize("precision", [FLOAT32, BF16])
@torch.inference_mode()
def test_heads_of_thirty_channels_attend_in_one_kernel(precision: torch.dtype):
    network = small_swinir(swinir.SwinIRConfig(60, (2,), (2,), 8, 24))
    network.set_precision(precision)
    network.to("cuda")
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):  # the others are not to be had here
        assert network(torch.rand(1, 3, 32, 48, device="cuda")).isfinite().all()


@contextmanager
def room(size: int) -> Iterator[None]:
    """So many bytes of the GPU's memory, beside what is taken already."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def wide_upscaler(device: torch.device) -> NetworkUpscaler:
    """Three maps of 268 MB at once for 512 x 512 pixels."""
    torch.manual_seed(0)
    network = SmallUpscaler(UpscalerSizes(features=256, blocks=1)).eval()
    torch.nn.init.normal_(network.last.weight, std=0.01)
    return torch_upscaler(network.to(device), 4, 1, device)


@on_gpu
def test_a_full_gpu_upscales_in_smaller_passes():
    device, picture = choose_device("cuda"), photo(512, 512)
    (wanted,) = wide_upscaler(device)([picture])
    upscaler = wide_upscaler(device)
    with room(650 * MEGABYTE):
        (result,) = upscaler([picture])
    assert upscaler.budget.pixels < 512 * 512
    assert np.abs(result.astype(int) - wanted).mean() < 0.1
    with room(0), pytest.raises(SettingsError, match="out of memory on cuda"):
        upscaler([picture])


@on_gpu
def test_a_full_gpu_refines_fewer_crops_at_once():
    device, (image, mask) = choose_device("cuda"), pair(1200, 900)
    wanted = cascade(device, FLOAT32, 300)(image, mask)
    refiner = cascade(device, FLOAT32, 300)
    refiner._budget.pixels = 10**9
    with room(300 * MEGABYTE):
        result = refiner(image, mask)
    assert refiner._budget.pixels < 10**9
    assert np.abs(result.astype(int) - wanted).mean() < 0.5


@on_gpu
def test_a_full_gpu_predicts_fewer_at_once_or_says_what_to_do(tmp_path: Path):
    weights, pictures = save_tiny(tmp_path / "tiny.safetensors"), [photo(64, 64)] * 16
    predictor = Predictor(weights, device="cuda", size=2048, batch=16)
    assert predictor.network.batch == 16
    wanted = predictor(pictures)
    with room(1000 * MEGABYTE):
        for less, whole in zip(predictor(pictures), wanted, strict=True):
            np.testing.assert_allclose(less, whole, atol=1e-3)
    with room(0), pytest.raises(SettingsError, match="smaller --size"):
        predictor(pictures)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "Failed to allocate memory for requested buffer of size 1600000000",
        "Non-zero status code returned while running Conv node. std::bad_alloc",
    ],
)
def test_libraries_run_out_of_memory_in_their_own_words(said: str):
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))


def test_crops_in_a_pass_stay_below_what_cuda_counts(monkeypatch: pytest.MonkeyPatch):
    free = 80 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    for widest, dtype in ((259, BF16), (259, FLOAT32), (1, FLOAT32)):
        network = SimpleNamespace(device=torch.device("cuda"), widest=widest, dtype=dtype)
        pixels = pixels_that_fit(network)  # type: ignore[arg-type]
        assert 0 < pixels * widest < 2**31
        assert pixels * widest * dtype.itemsize < free


def test_a_device_that_does_not_start_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch):
    if not torch.cuda.is_available():

        def ones(*_: object, **named: object) -> None:
            raise RuntimeError(f"CUDA error: invalid device ordinal {named}\nCompile with ...")

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(SettingsError, match=r"--device cuda:99 does not start: .*ordinal") as told:
        choose_device("cuda:99")
    assert "Compile" not in str(told.value)


@on_gpu
def test_after_a_fork_a_gpu_says_why_not(tmp_path: Path):
    weights = save_tiny(tmp_path / "tiny.safetensors")
    predictor, image = Predictor(weights, device="cuda"), random_picture((40, 60, 3))
    wanted = hashlib.sha256(predictor(image)).digest()
    assert b"before this one was forked" in after_a_fork(lambda: bytes(predictor(image)))
    fresh = Predictor(weights, device="cuda")
    assert b"--device cuda does not start" in after_a_fork(lambda: bytes(fresh(image)))
    assert hashlib.sha256(predictor(image)).digest() == wanted


def test_a_driver_without_a_gpu_takes_nothing_from_the_cpu(monkeypatch: pytest.MonkeyPatch):
    """Such as PyTorch's build for CPUs on a machine that has a GPU."""
    monkeypatch.setattr(machine, "has_gpu_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(load_network(DEFAULT, "auto", "auto"), OnnxNetwork)


def test_onnx_runtime_takes_the_gpu_it_is_told_or_says_so(monkeypatch: pytest.MonkeyPatch):
    file, asked = find_weights(DEFAULT).with_suffix(".onnx"), []
    session = onnxruntime.InferenceSession

    def without_cuda(path: Path, options: object, providers: list[object]) -> object:
        asked.append(providers[0])
        return session(path, options, providers[-1:])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_cuda)
    with pytest.raises(SettingsError, match="cuda:1: ONNX Runtime could not load"):
        open_session(file, "cuda:1")
    open_session(file, "auto")
    assert asked == [(CUDA, {"device_id": "1"}), (CUDA, {"device_id": "0"})]


@pytest.fixture
def accelerator(place: str) -> Iterator[Accelerator]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=place == "cpu")
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("place", PLACES)
def test_a_training_goes_on_from_a_checkpoint(place: str, accelerator: Accelerator, tmp_path: Path):
    whole, batches = purnet_trainer(accelerator, Noise())
    assert whole.device.type == place
    for step, batch in enumerate(batches.ahead(0, 4), 1):
        whole.train(batch, batches.names)
        if step == 2:
            save_state(tmp_path, step, whole.state())
    again, batches = purnet_trainer(accelerator, Noise())
    restore_newest(tmp_path, again.restore)
    for batch in batches.ahead(again.step, 4):
        again.train(batch, batches.names)
    assert again.step == whole.step == 4
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kept", [None, torch.zeros(16, dtype=torch.uint8)])
def test_a_run_may_change_its_device(
    place: str, accelerator: Accelerator, kept: torch.Tensor | None, tmp_path: Path
):
    """What a run on a GPU, or on none, wrote is a whole checkpoint on the other."""
    trainer, _ = purnet_trainer(accelerator, Noise())
    save_state(tmp_path, 1, trainer.state() | {"random_cuda": kept, "step": 1})
    restore_newest(tmp_path, trainer.restore)
    assert trainer.step == 1

"""Weights are whole or refused, downloads resume, and nothing is unpickled."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hqsod import download, weights
from hqsod.cli import app
from hqsod.errors import InputError, OutputError, WeightsError

DATA = bytes(range(256)) * 20_000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves DATA with ranges; `breaks` breaks off the first answer, `plain` knows no ranges."""

    def __init__(self, asked: list[str], *args) -> None:
        self.asked = asked
        super().__init__(*args)

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.asked.append(wanted)
        ranged = wanted and "plain" not in self.path
        data = DATA[int(wanted[6:-1]) :] if ranged else DATA
        if self.path.startswith("/wrong"):
            data = data[::-1]
        if self.path == "/much":
            data = data + bytes(9)
        if self.path == "/wrong-breaks":
            data = data[::-1]
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        breaks = "breaks" in self.path and len(self.asked) == 1
        self.wfile.write(data[: len(data) // 2] if breaks else data)

    def log_message(self, *_args) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def address(asked: list[str]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch, address: str):
    """Register a file `toy` at the given paths of the server, in an empty cache."""
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    known = weights.registry()["swinir-l"]

    def register(*paths: str) -> weights.WeightFile:
        urls = tuple(address + path for path in paths)
        toy = replace(known, name="toy", file="toy.pth", urls=urls, digest=DIGEST, size=len(DATA))
        monkeypatch.setattr(weights, "registry", lambda: {"toy": toy})
        return toy

    return register


def test_a_file_is_fetched_once_and_checked(publish, asked: list[str]):
    toy = publish("/file")
    assert not weights.at_hand("toy")
    for _ in range(2):
        assert weights.resolve("toy").read_bytes() == DATA
    assert asked == [""]
    assert weights.at_hand("toy")
    assert {file.name for file in toy.path.parent.iterdir()} <= {"toy.pth", "toy.pth.lock"}


def test_a_broken_download_goes_on_where_it_ended(publish, asked: list[str]):
    publish("/breaks")
    with pytest.raises(WeightsError, match="out of reach"):
        weights.resolve("toy")
    assert weights.resolve("toy").read_bytes() == DATA
    first, second = asked
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(DATA) // 2


def test_a_server_without_ranges_starts_again(publish):
    publish("/plain-breaks")
    with pytest.raises(WeightsError):
        weights.resolve("toy")
    assert weights.resolve("toy").read_bytes() == DATA


def test_a_wrong_file_is_refused_and_the_next_address_tried(publish):
    toy = publish("/wrong")
    with pytest.raises(WeightsError, match="another hash"):
        weights.resolve("toy")
    assert not toy.path.exists()
    publish("/wrong", "/file")
    assert weights.resolve("toy").read_bytes() == DATA


@pytest.mark.parametrize("bad", ["/much", "/wrong-breaks", "/wrong"])
def test_an_address_does_not_spoil_the_next(publish, bad: str):
    toy = publish(bad, "/file")
    assert weights.resolve("toy").read_bytes() == DATA
    assert {file.name for file in toy.path.parent.iterdir()} <= {"toy.pth", "toy.pth.lock"}


@pytest.mark.parametrize("part", [True, False])
def test_a_cache_that_cannot_be_written_to_is_told(publish, part: bool):
    toy = publish("/file")
    taken = download._part(toy.path, toy.urls[0]) if part else toy.path.with_name("toy.pth.lock")
    taken.mkdir(parents=True)
    with pytest.raises(OutputError, match="set HQSOD_CACHE to another folder"):
        weights.resolve("toy")


def test_offline_says_what_to_put_where(publish, asked: list[str]):
    toy = publish("/file")
    with pytest.raises(WeightsError, match="downloads are off") as caught:
        weights.resolve("toy", offline=True)
    assert toy.urls[0] in str(caught.value)
    assert str(toy.path) in str(caught.value)
    assert asked == []


def test_a_file_that_was_changed_is_refused(publish):
    path = weights.resolve("toy") if publish("/file") else Path()
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(WeightsError, match="not the published one"):
        weights.resolve("toy")


def test_what_is_fetched_is_said(publish, capsys: pytest.CaptureFixture[str]):
    toy = publish("/file")
    weights.resolve("toy")
    said = capsys.readouterr().err
    assert f"fetching toy ({toy.network}, 5 MB; licence: {toy.licence}) from {toy.urls[0]}" in said


def test_where_md5_alone_is_published_the_first_sha256_stays(publish, monkeypatch):
    toy = replace(publish("/file"), digest="md5:" + hashlib.md5(DATA).hexdigest())
    monkeypatch.setattr(weights, "registry", lambda: {"toy": toy})
    path = weights.resolve("toy")
    monkeypatch.setattr(weights, "is_intact", partial(only_by_sha256, weights.is_intact))
    assert weights.resolve("toy") == path
    path.write_bytes(DATA[::-1])
    with pytest.raises(WeightsError, match="changed since its first check"):
        weights.resolve("toy")


def only_by_sha256(is_intact: Callable[[Path, str], bool], path: Path, digest: str) -> bool:
    """`is_intact` as if MD5 were broken and took any file."""
    return digest.startswith("md5:") or is_intact(path, digest)


def test_a_path_is_taken_and_an_unknown_name_refused(tmp_path: Path):
    (tmp_path / "mine.pth").write_bytes(b"x")
    assert weights.resolve(str(tmp_path / "mine.pth")) == tmp_path / "mine.pth"
    with pytest.raises(WeightsError, match="swinir-l, swinir-m, cascadepsp, resnet50"):
        weights.resolve("swinir-xl")


def test_every_published_entry_is_complete():
    for name, file in weights.registry().items():
        algorithm, _, digest = file.digest.partition(":")
        assert len(digest) == {"sha256": 64, "md5": 32}[algorithm], name
        assert all(url.startswith("https://") for url in file.urls), name
        assert file.licence, name


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.float16)}


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all((state[k] == STATE[k]).all() for k in STATE)


def test_safetensors_keep_values_and_metadata(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    weights.save(path, STATE, {"network": "toy"})
    state, metadata = weights.load_with_metadata(path)
    assert same(state)
    assert same(weights.load(path))
    assert metadata == {"network": "toy"}
    with pytest.raises(InputError, match=r"\.safetensors"):
        weights.save(tmp_path / "x.pth", STATE, {})


@pytest.mark.parametrize("key", [None, "params_ema", "state_dict"])
def test_checkpoints_are_unwrapped(tmp_path: Path, key: str | None):
    torch.save({key: STATE, "step": 3} if key else STATE, tmp_path / "x.pth")
    assert same(weights.load(tmp_path / "x.pth"))


def test_code_in_a_pickle_is_not_run(tmp_path: Path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"a": Attack()}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        weights.load(tmp_path / "x.pth")
    assert not (tmp_path / "owned").exists()


def test_equal_weights_are_equal_files(tmp_path: Path):
    """The library orders metadata by chance, anew in each call."""
    metadata = dict.fromkeys("hqsodtrain", "é" * 3)
    for number in range(8):
        weights.save(tmp_path / f"{number}.safetensors", STATE, metadata)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    state, kept = weights.load_with_metadata(tmp_path / "0.safetensors")
    assert same(state)
    assert kept == metadata


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_without_a_value_are_refused(
    tmp_path: Path, name: str, value: float, dtype: torch.dtype
):
    state = {**STATE, "c": torch.tensor([1, value], dtype=dtype)}
    if name == "x.pth":
        torch.save(state, tmp_path / name)
    else:
        weights.save(tmp_path / name, state, {})
    with pytest.raises(WeightsError, match="NaN or infinity in c"):
        weights.load(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 a photograph", bytes(99)])
def test_what_is_no_checkpoint_is_told_without_advice_to_unpickle(tmp_path: Path, content: bytes):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable checkpoint") as refusal:
        weights.load(tmp_path / "photo.jpg")
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize("content", [[STATE], {3: torch.ones(1)}, {"model": [1]}, 5])
def test_what_holds_no_named_tensors_is_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="a state dict"):
        weights.load(tmp_path / "x.pth")


def test_names_can_be_read_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    listed = CliRunner().invoke(app, ["weights", "list"]).output
    assert all(f" {name} " in listed for name in weights.registry())


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(DATA[:1000])
    with pytest.raises(WeightsError, match=name):
        weights.load(tmp_path / name)
    torch.save({"a": 3}, tmp_path / "y.pth")
    with pytest.raises(WeightsError, match="a state dict"):
        weights.load(tmp_path / "y.pth")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(1).expand(1 << 38),
    ],
    ids=["sparse", "without data", "complex", "a terabyte of one number"],
)
def test_tensors_that_no_network_has_are_refused(tmp_path: Path, tensor: torch.Tensor):
    torch.save({"a": torch.ones(2), "odd": tensor}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"odd is no ordinary tensor|not a readable checkpoint"):
        weights.load(tmp_path / "weights.pth")

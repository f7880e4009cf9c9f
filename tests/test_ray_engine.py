"""The build on Ray: the local engine's bytes, resume and rejects, and what a dead worker costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hqsod import weights
from hqsod.building import ray_engine
from hqsod.building.engines import LocalEngine
from hqsod.building.pipeline import build
from hqsod.building.ray_engine import MOST_STARTS, Pool, RayEngine, share
from hqsod.cli import app
from hqsod.dataset.layouts import find_pairs
from hqsod.dataset.manifest import Manifest, Record
from hqsod.errors import SettingsError
from hqsod.images import Array
from tests.conftest import write_pair
from tests.test_building import FILTERS, digests, load, odd_pairs
from tests.test_cascadepsp import small as small_cascadepsp
from tests.test_swinir import small as small_swinir


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of two cores on loopback, and an S3 server its workers know."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://127.0.0.1:{1}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with start_ray():
            yield
    server.stop()


def start_ray():
    """Ray gives its daemons 30 s to start, which a busy machine may need more than once."""
    ray = ray_engine.import_ray(ray_engine.LOCAL_RAY)
    for _ in range(3):
        try:
            return ray.init(
                "local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=ray_engine.OBJECT_STORE,
                log_to_driver=False,
            )
        except Exception as error:
            failed = error
    raise failed


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as a worker of one core has: oneDNN's sums depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def records(folder: Path) -> dict[str, Record]:
    """The manifest's newest records, without their timings."""
    with Manifest.open(folder) as manifest:
        return {stem: replace(r, seconds={}) for stem, r in manifest.latest().items()}


def run(*arguments: object) -> str:
    """`hqsod build`, which must end well; what it printed."""
    answer = CliRunner().invoke(app, ["build", *map(str, arguments), "--canvas", "256"])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.mark.slow
def test_the_same_bytes_and_rejects_as_here(tmp_path: Path, ray_here: None):
    bad = odd_pairs(tmp_path / "source")
    folders = {"local": tmp_path / "local", "ray": tmp_path / "ray"}
    options = {"local": [], "ray": ["--engine", "ray", "--cores", "1"]}
    for name, dest in folders.items():
        command = ["build", str(tmp_path / "source"), str(dest), *FILTERS]
        answer = CliRunner().invoke(app, [*command, "--canvas", "256", *options[name]])
        assert answer.exit_code == 1, answer.output
        assert f"4 built, 0 up to date, {len(bad)} rejected" in answer.stdout
    assert "device: 2 workers, each cpu (1 threads)" in answer.stdout
    assert digests(folders["ray"]) == digests(folders["local"])
    assert records(folders["ray"]) == records(folders["local"])
    assert not list(folders["ray"].rglob("*.part"))


@pytest.mark.slow
def test_networks_give_the_same_bytes(
    source: Path, tmp_path: Path, ray_here: None, one_thread: None
):
    torch.manual_seed(0)
    weights.save(tmp_path / "up.safetensors", small_swinir().state_dict(), {})
    torch.save(small_cascadepsp().state_dict(), tmp_path / "refine.pth")
    networks = ["--upscaler", tmp_path / "up.safetensors", "--refiner", tmp_path / "refine.pth"]
    settings = [*networks, "--precision", "float32"]  # in bf16 rounding hides most of a difference
    run(source, tmp_path / "local", *settings)
    run(source, tmp_path / "ray", *settings, "--engine", "ray", "--cores", 1)
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    assert records(tmp_path / "ray") == records(tmp_path / "local")


class Watched:
    """An upscaler that writes down each start, takes its time, and dies of one width."""

    name, weights, scale = "watched", "", 4
    deadly = 44

    def __init__(self, engine: LocalEngine, log: Path) -> None:
        self.engine, self.log = engine, log

    def __call__(self, pictures: Sequence[Array]) -> list[Array]:
        width = pictures[0].shape[1]
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {width}\n")
        time.sleep(0.5)
        if width == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.engine.upscaler(pictures)


def load_watched(log: Path) -> LocalEngine:
    engine = load()
    return replace(engine, upscaler=Watched(engine, log))


def kill_one(log: Path, started: int) -> None:
    """Once so many batches have begun, kill the worker of the newest harmless one."""
    while True:
        lines = log.read_text().splitlines() if log.is_file() else []
        if len(lines) >= started and not lines[-1].endswith(f" {Watched.deadly}"):
            os.kill(int(lines[-1].split()[0]), signal.SIGKILL)
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_a_dead_worker_costs_its_batch_and_nothing_else(tmp_path: Path, ray_here: None):
    for number in range(8):
        write_pair(tmp_path / "source", f"good {number}", width=60)
    write_pair(tmp_path / "source", "deadly", width=Watched.deadly)
    pairs, log = find_pairs(tmp_path / "source"), tmp_path / "log"
    engine = RayEngine(partial(load_watched, log), load().settings, Pool(2, 1, 0))
    killer = threading.Thread(target=kill_one, args=(log, 3), daemon=True)
    killer.start()
    summary = build(pairs, tmp_path / "ray", engine)
    killer.join(1)
    assert (summary.built, summary.rejected) == (8, ("deadly",))
    assert f"its worker died {MOST_STARTS} times" in records(tmp_path / "ray")["deadly"].notes
    starts = [line.split()[1] for line in log.read_text().splitlines()]
    assert (starts.count("60"), starts.count(str(Watched.deadly))) == (8 + 1, MOST_STARTS)
    build([pair for pair in pairs if pair.stem != "deadly"], tmp_path / "local", load())
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


@pytest.mark.slow
def test_a_killed_build_leaves_no_process_of_rays(tmp_path: Path):
    pytest.importorskip("ray", reason="ray is not installed")
    for number in range(200):
        write_pair(tmp_path / "source", f"{number}", width=60)
    command = [sys.executable, "-m", "hqsod", "build", tmp_path / "source", tmp_path / "dest"]
    command += [*FILTERS, "--canvas", "256", "--engine", "ray", "--cores", "1"]
    started: list[int] = []
    for _ in range(3):  # as `start_ray`
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as job,
        ):
            while not started and job.poll() is None:
                time.sleep(0.05)
                if list(tmp_path.glob("dest/images/*.png")):
                    started = descendants(job.pid)
                    names = {Path(f"/proc/{pid}/cmdline").read_bytes() for pid in started}
                    job.send_signal(signal.SIGKILL)
        if started:
            break
    assert started, (tmp_path / "log").read_text()
    assert any(b"raylet" in name for name in names)
    assert any(b"ray::" in name for name in names)  # its workers
    until = time.monotonic() + 180  # seconds; Ray's dashboard agent takes more than one minute
    while left := [pid for pid in started if state(pid) not in "ZX"]:
        assert time.monotonic() < until, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
        time.sleep(0.1)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    children = [int(child) for child in text.split()]
    return [*children, *(one for child in children for one in descendants(child))]


def state(pid: int) -> str:
    """The letter that Linux gives a process's state; X for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


@pytest.mark.slow
def test_from_and_to_a_store(source: Path, tmp_path: Path, ray_here: None):
    from upath import UPath

    UPath("s3://data").mkdir()
    (source / "images" / "d.png").write_bytes(b"broken")
    for file in source.rglob("*.png"):
        (UPath("s3://data/set") / file.relative_to(source)).write_bytes(file.read_bytes())
    options = ["--canvas", "256", *FILTERS]
    command = ["build", "s3://data/set", "s3://data/built", *options]
    answer = CliRunner().invoke(app, command)
    assert "3 built, 0 up to date, 1 rejected" in answer.stdout, answer.output
    assert "rejected: s3://data/set/images/d.png: not an image" in answer.stderr
    for lost in ("images/b c.png", "masks/a.png"):
        (UPath("s3://data/built") / lost).unlink()
    answer = CliRunner().invoke(app, [*command, "--engine", "ray", "--cores", "1"])
    assert "2 built (2 of them again), 1 up to date, 1 rejected" in answer.stdout, answer.output
    fetched = tmp_path / "fetched"
    UPath("s3://data/built").fs.get("data/built", str(fetched), recursive=True)
    CliRunner().invoke(app, ["build", str(source), str(tmp_path / "local"), *options])
    assert digests(fetched) == digests(tmp_path / "local")
    assert {"manifest.sqlite", "README.md", "contact-sheet.jpg"} <= {
        p.name for p in fetched.iterdir()
    }


@pytest.mark.parametrize(
    ("nodes", "device", "cores", "pool"),
    [
        ([{"CPU": 16}], "auto", None, Pool(1, 16, 0)),
        ([{"CPU": 16}], "auto", 5, Pool(3, 5, 0)),
        ([{"CPU": 16}, {"CPU": 8}, {}], "cpu", None, Pool(3, 8, 0)),
        ([{"CPU": 64, "GPU": 8}], "auto", None, Pool(8, 8, 1)),
        ([{"CPU": 64, "GPU": 8}], "auto", 16, Pool(4, 16, 1)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 8}], "cpu", None, Pool(9, 8, 0)),
        ([{"CPU": 8}, {"CPU": 8, "GPU": 1}], "cuda", None, Pool(1, 8, 1)),
        ([{"CPU": 2, "GPU": 4}], "cuda", None, Pool(2, 1, 1)),
    ],
)
def test_how_machines_are_shared(nodes, device: str, cores: int | None, pool: Pool):
    assert share(nodes, device, cores) == pool


@pytest.mark.parametrize(
    ("device", "cores", "complaint"),
    [("cuda", None, "a GPU"), ("cpu", 5, "with 5 cores"), ("cuda:1", None, "auto, cpu or cuda")],
)
def test_what_no_machine_has_is_told(device: str, cores: int | None, complaint: str):
    with pytest.raises(SettingsError, match=complaint):
        share([{"CPU": 4}, {"CPU": 2}], device, cores)


def test_without_ray_one_line_says_what_to_install(source: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["build", str(source), str(tmp_path / "dest"), "--engine", "ray"]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, SettingsError)
    assert "pip install 'hqsod[ray]'" in str(error)


@pytest.mark.parametrize(
    "options", [["--cores", "2"], ["--address", "auto"], ["--engine", "spark"]]
)
def test_options_that_do_not_go_together(options: list[str], source: Path, tmp_path: Path):
    error = CliRunner().invoke(app, ["build", str(source), str(tmp_path / "d"), *options]).exception
    assert isinstance(error, SettingsError)
    assert "need --engine ray" in str(error)

"""A job takes as many threads as the machine gives it, and leaves the rest to others."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hqsod import machine
from hqsod.errors import SettingsError

THREADS = "from hqsod import machine; print(machine.threads())"


def counted(*before: str, **variables: str) -> int:
    """What a fresh process counts, started by another command or with other variables."""
    environment = {k: v for k, v in os.environ.items() if k != machine.VARIABLE} | variables
    command = [*before, sys.executable, "-c", THREADS]
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def test_the_cores_a_process_may_run_on_are_counted():
    core = min(os.sched_getaffinity(0))
    assert counted("taskset", "--cpu-list", str(core)) == 1


def test_what_the_user_says_counts():
    assert counted(OMP_NUM_THREADS="3") == 3
    assert counted(OMP_NUM_THREADS="4,2") == 4, "the second is for nested threads"
    assert counted(OMP_NUM_THREADS="none") == counted()


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.mark.parametrize(
    ("outer", "inner", "wanted"),
    [
        ("max 100000", "100000 100000", [1.0]),
        ("150000 100000", "max 100000", [1.5]),
        ("200000 100000", "50000 100000", [0.5, 2.0]),
        ("max 100000", "broken", []),
    ],
)
def test_quotas_of_version_2_are_those_of_all_groups_around(
    tmp_path: Path, outer: str, inner: str, wanted: list[float]
):
    group(tmp_path / "outer", cpu_max=outer)
    group(tmp_path / "outer" / "inner", cpu_max=inner)
    assert list(machine.quotas(tmp_path, "0::/outer/inner\n")) == wanted


def test_quotas_of_version_1(tmp_path: Path):
    group(tmp_path / "cpu" / "job", cpu_cfs_quota_us="300000", cpu_cfs_period_us="100000")
    group(tmp_path / "cpu", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    membership = "5:memory:/other\n4:cpu,cpuacct:/job\n0::/\n"
    assert list(machine.quotas(tmp_path, membership)) == [3.0]


@pytest.mark.parametrize(("quota", "wanted"), [("50000", 1), ("100000", 1), ("900000000", None)])
def test_a_quota_bounds_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, wanted: int | None
):
    group(tmp_path, cpu_max=f"{quota} 100000")
    (tmp_path / "membership").write_text("0::/\n")
    monkeypatch.delenv(machine.VARIABLE, raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    assert machine.threads() == (wanted or len(os.sched_getaffinity(0)))


@pytest.fixture
def one_core() -> Iterator[Path]:
    """A control group of this machine with a quota of one core."""
    folder = Path("/sys/fs/cgroup/cpu") / f"hqsod-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cpu.cfs_quota_us").write_text("100000")
    except OSError as error:
        pytest.skip(f"needs the right to make a control group ({error})")
    yield folder
    folder.rmdir()


def test_a_real_quota_of_one_core_is_seen(one_core: Path):
    assert counted("sh", "-c", f'echo $$ > {one_core}/cgroup.procs && exec "$@"', "sh") == 1


def test_openmp_is_told_to_wait_without_spinning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(machine.VARIABLE, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    machine.set_environment()
    assert os.environ[machine.VARIABLE] == str(machine.threads())
    assert os.environ["OMP_WAIT_POLICY"] == "active", "what the user has set stays"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    machine.set_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


PREDICTING = """
import time
import numpy as np
import hqsod
predict, image = hqsod.Predictor(device="cpu"), np.zeros((300, 400, 3), np.uint8)
predict(image)
start = time.process_time()
for _ in range(20):
    predict(image)
print(time.process_time() - start)
"""


@contextmanager
def busy_neighbours() -> Iterator[None]:
    """Two processes for each core that never rest."""
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(2 * len(os.sched_getaffinity(0)))]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.slow  # half a minute: four processes beside busy ones
def test_beside_busy_neighbours_a_second_thread_waits_without_the_processor():
    """Where threads spin while they wait for each other, two take twice what one takes."""

    def seconds(threads: int) -> float:
        environment = os.environ | {machine.VARIABLE: str(threads)}
        command = [sys.executable, "-c", PREDICTING]
        return min(float(subprocess.check_output(command, env=environment)) for _ in range(2))

    with busy_neighbours():
        assert seconds(2) < 1.5 * seconds(1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep less")
def test_memory_goes_back_that_holes_would_keep():
    """Of 4,000 arrays every 100th is kept, so that the heap's end, which glibc trims, is taken."""
    code = """
import numpy as np
from hqsod import machine
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
machine.keep_memory_low()
arrays = [np.ones(2**16, np.uint8) for _ in range(4000)]
arrays = arrays[::100] + arrays[-1:]
before = resident()
machine.give_back_memory()
print(before - resident())
"""
    assert int(subprocess.check_output([sys.executable, "-c", code])) > 200e6


def test_a_device_that_is_none_is_refused():
    for name in ("auto", "cpu", "cuda", "cuda:12"):
        machine.require_device_name(name)
    with pytest.raises(SettingsError, match="cuda:N"):
        machine.require_device_name("gpu")

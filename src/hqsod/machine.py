"""What this machine gives a job, and how the job behaves as one of several there. Needs no torch.

A thread that waits by spinning keeps a core from whoever needs it: beside two busy processes on two
cores such a job took thirteen times as long as alone, and not the twice that its share allows.
How many threads read and write files is said in `hqsod.runner`.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hqsod.errors import SettingsError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MMAP_THRESHOLD, ARENA_MAX = -3, -8  # of glibc's mallopt: malloc.h has them
LARGE = 16 * 2**20  # bytes
VARIABLE = "OMP_NUM_THREADS"  # says how many, for OpenMP and for us


def threads() -> int:
    """Threads for one job: what OMP_NUM_THREADS says, or the cores this process is really given.

    Those are the cores it may run on (`taskset`, Slurm), or fewer where a quota says so (Docker's
    `--cpus`, Kubernetes' limits).
    """
    told = os.environ.get(VARIABLE, "").split(",")[0].strip()  # more are for nested threads
    if told.isdigit() and int(told) > 0:
        return int(told)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    membership = MEMBERSHIP.read_text() if MEMBERSHIP.exists() else ""
    return max(1, math.floor(min([allowed or 1, *quotas(CGROUPS, membership)])))


def set_threads(count: int) -> None:
    """Have this process's networks compute in so many threads, those loaded from now on."""
    os.environ[VARIABLE] = str(count)
    if torch := sys.modules.get("torch"):  # which has read it
        torch.set_num_threads(count)


def quotas(root: Path, membership: str) -> Iterator[float]:
    """Cores that each control group around this process grants; none where no quota is set.

    Args:
        root: where control groups are mounted, of version 1 or 2.
        membership: as /proc/self/cgroup tells it, lines of `number:controllers:/path`.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            yield from _quota(folder)
            if folder == top:
                break


def _quota(group: Path) -> Iterator[float]:
    """Cores that one control group grants, if it bounds them."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):  # no such file here, or none that may be read: no quota known
        return


def set_environment() -> None:
    """Tell OpenMP how many threads and how to wait, PyTorch what memory; call it before its import.

    What the user has set stays.
    """
    os.environ.setdefault(VARIABLE, str(threads()))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch's large arrays in huge pages


def keep_memory_low() -> None:
    """Have glibc keep less of what is freed; call it before a job's threads start.

    Arrays of ever other sizes leave holes in its heaps: a build that held 0.4 GB at a time took
    3.7 GB after 700 pairs, and more with each. So the largest arrays come from the system one by
    one, in huge pages (see `set_environment`), all threads share one heap, and `give_back_memory`
    empties its holes. Had more arrays come from the system, a pair would take half as long again.
    """
    if limit := _of_glibc("mallopt"):
        limit(MMAP_THRESHOLD, LARGE)
        limit(ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return to the system what was freed and glibc keeps; takes a twentieth of a second."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library, if it is glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def has_gpu_driver() -> bool:
    """Whether NVIDIA's driver is installed, so that it is worth asking PyTorch for a GPU."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def require_device_name(name: str) -> None:
    """Check that `name` is `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: it is not.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise SettingsError(f"--device {name}", expected="auto, cpu, cuda or cuda:N")

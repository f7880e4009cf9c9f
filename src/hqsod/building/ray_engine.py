"""Where a build runs: a pool of Ray workers, each of which is a local engine.

Ray Data (https://docs.ray.io) hands the batches to the pool, one at a time to a worker, and streams
the records back. A worker loads its own networks, reads the pairs of a batch, and writes their
files; only paths and records travel. When a worker dies, Ray starts another and gives it the same
batch; a batch whose workers keep dying is rejected, so that it does not cost the others.

The bytes are those of the local engine with the same number of threads on the same processor.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsod import machine
from hqsod.building.engines import LocalEngine, load_engine
from hqsod.building.pair import PairTask, rejected
from hqsod.building.recipes import BuildRecipe, BuildSettings
from hqsod.dataset.manifest import Record
from hqsod.errors import HqsodError, SettingsError, WeightsError
from hqsod.inference.runtime import Runtime, choose_runtime

if TYPE_CHECKING:
    from types import ModuleType

MOST_STARTS = 3  # of a batch; workers that die are seldom to blame themselves so often
WAITING = 2  # batches that a worker has at hand, so that it need not wait for the next

# Of a Ray that is started here: nothing is sent to Ray's makers, it listens on loopback only (the
# second name is Ray's own, and works on Linux too), its daemons' logs stay out of the terminal, and
# its workers, which are the job, give way to no other program.
LOCAL_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_niceness": "0",
}
OBJECT_STORE = 100 * 2**20  # bytes; no images pass through it

Load = Callable[[], LocalEngine]


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal workers.

    Attributes:
        workers: how many.
        cores: processor cores of each: as many threads compute.
        gpus: of each, 0 or 1.
    """

    workers: int
    cores: int
    gpus: int


@contextmanager
def ray_engine(
    recipe: BuildRecipe,
    device: str,
    precision: str,
    address: str | None = None,
    cores: int | None = None,
) -> Iterator[RayEngine]:
    """Share a cluster among workers, and let one of them say what the recipe means there.

    Args:
        recipe: what to build with.
        device: `auto`, `cpu` or `cuda`; auto takes the cluster's GPUs if it has any.
        precision: as `choose_runtime` takes it; a worker's machine is asked.
        address: of the cluster; where None, RAY_ADDRESS, or a Ray of this machine's own.
        cores: of each worker; where None, a machine's cores divided among its GPUs, or all.

    Raises:
        SettingsError: no Ray, or its cluster has no such device or no machine with so many cores.
        WeightsError: a worker cannot load the networks.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    ray = import_ray({} if address else LOCAL_RAY)
    with _connected(ray, address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        pool = share(nodes, device, cores)
        look = ray.remote(num_cpus=pool.cores, num_gpus=pool.gpus)(_look)
        found = ray.get(look.remote(recipe, precision, pool))
        settings, runtime, runs_on = _unwrap(found)
        load = partial(_load, recipe, runtime, pool)
        yield RayEngine(load, settings, pool, runs_on)


@contextmanager
def _connected(ray: ModuleType, address: str | None) -> Iterator[None]:
    """Use the cluster at `address`, or start Ray here, while the block runs."""
    if ray.is_initialized():
        yield
        return
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else here),
        )
    except Exception as error:  # Ray raises bare ones
        where = f"--address {address}" if address else "--engine ray"
        raise SettingsError(
            f"{where}: {str(error).splitlines()[0]}",
            expected="a running Ray cluster (auto, HOST:6379) or room on this machine to start one",
            fix="see ray status, or run again when the machine is less busy",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def import_ray(environment: Mapping[str, str]) -> ModuleType:
    """Import Ray, which reads its settings from the environment as it is imported.

    Args:
        environment: what to set where it is not set already.

    Raises:
        SettingsError: Ray is not installed.
    """
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SettingsError(
            f"--engine ray: {error}", expected="Ray Data", fix="pip install 'hqsod[ray]'"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def share(nodes: Sequence[dict[str, float]], device: str, cores: int | None) -> Pool:
    """Divide machines into workers of one GPU each, or of `cores` cores each.

    Args:
        nodes: what each machine has, under the names `CPU` and `GPU`.
        device: `auto`, `cpu` or `cuda`.
        cores: of each worker, or None; see `ray_engine`.

    Raises:
        SettingsError: not one worker can be had.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(
            f"--device {device}",
            expected="auto, cpu or cuda",
            fix="leave out the number, since Ray assigns the GPUs",
        )
    gpus = int(device == "cuda" or (device == "auto" and any(node.get("GPU") for node in nodes)))
    room = [
        (int(node.get("CPU", 0)), int(node.get("GPU", 0)) if gpus else 1)
        for node in nodes
        if node.get("CPU", 0) >= 1 and (not gpus or node.get("GPU", 0) >= 1)
    ]
    if cores is None:
        cores = max(1, min((have // parts for have, parts in room), default=1))
    workers = sum(min(have // cores, parts) if gpus else have // cores for have, parts in room)
    if not workers:
        found = ", ".join(f"{int(node.get('CPU', 0))} cores" for node in nodes) or "nothing"
        raise SettingsError(
            f"a cluster of {found}, GPUs: {int(sum(node.get('GPU', 0) for node in nodes))}",
            expected=f"a machine with {cores} cores" + (" and a GPU" if gpus else ""),
            fix="give another --cores or --device, or add machines",
        )
    return Pool(workers, cores, gpus)


@dataclass(frozen=True, slots=True)
class RayEngine:
    """A pool of workers; see `hqsod.building.engines.Engine`.

    Attributes:
        load: makes a worker's engine, in the worker.
        settings: what it must have been made with.
        pool: the workers.
        runs_on: a worker's device, in words.
    """

    load: Load
    settings: BuildSettings
    pool: Pool
    runs_on: str = ""

    def run(self, batches: Sequence[Sequence[PairTask]], folder: Path) -> Iterator[Record]:
        """Build the batches in the pool, in no particular order; see `Engine`.

        Raises:
            HqsodError: of any kind that a worker met and that concerns more than one pair.
        """
        if not batches:
            return
        ray = import_ray({})
        ray.data.DataContext.get_current().enable_progress_bars = False
        starts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Starts).remote()
        rows = [{"work": Work(number, batch)} for number, batch in enumerate(batches)]
        pool = ray.data.ActorPoolStrategy(
            size=min(self.pool.workers, len(batches)), max_tasks_in_flight_per_actor=WAITING
        )
        # A block for each batch: what is lost with a worker, and done again, is a block.
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Worker,
            fn_constructor_args=(self.load, self.settings, folder, starts),
            compute=pool,
            num_cpus=self.pool.cores,
            num_gpus=self.pool.gpus or None,
        )
        for row in results.iter_rows():
            yield from _unwrap(row["result"])


@dataclass(frozen=True, slots=True)
class Work:
    """A batch on its way to a worker."""

    number: int
    batch: Sequence[PairTask]


@dataclass(frozen=True, slots=True)
class Result:
    """What comes back: a value, or what went wrong, which Ray would bury in a traceback."""

    value: Any = None
    error: HqsodError | None = None


class Starts:
    """Counts how often each batch was begun; Ray runs one for the whole build."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Count another start; returns how many there were."""
        self._count[number] += 1
        return self._count[number]


class Worker:
    """One of the pool; Ray calls it with one batch at a time."""

    def __init__(self, load: Load, settings: BuildSettings, folder: Path, starts: Any) -> None:
        self._load, self._settings = load, settings
        self._folder, self._starts = folder, starts

    def __call__(self, row: dict[str, Work]) -> dict[str, Result]:
        """Build a batch."""
        work = row["work"]
        try:
            return {"result": Result(self._build(work))}
        except HqsodError as error:
            return {"result": Result(error=error)}

    def _build(self, work: Work) -> list[Record]:
        starts = import_ray({}).get(self._starts.begin.remote(work.number))
        if starts > MOST_STARTS:
            reason = f"its worker died {MOST_STARTS} times"
            return [
                rejected(task, f"{task.pair.image}: {reason}", self._settings)
                for task in work.batch
                if task.needed
            ]
        return list(self._engine.run([work.batch], self._folder))

    @cached_property
    def _engine(self) -> LocalEngine:
        engine = self._load()
        if engine.settings != self._settings:
            raise WeightsError(
                f"{engine.settings.upscaler}, {engine.settings.refiner}: different weights on "
                f"machine {os.uname().nodename} than on the first",
                expected="the same files everywhere",
                fix="use a folder that all machines share, or names that each can fetch",
            )
        return engine


def _look(recipe: BuildRecipe, precision: str, pool: Pool) -> Result:
    """On a worker's machine: the settings, where the networks run, and a line for the user."""
    try:
        runtime = choose_runtime("cuda" if pool.gpus else "cpu", precision)
        engine = _load(recipe, runtime, pool)
    except HqsodError as error:
        return Result(error=error)
    return Result((engine.settings, runtime, str(runtime)))


def _load(recipe: BuildRecipe, runtime: Runtime, pool: Pool) -> LocalEngine:
    """In a worker: its networks, with as many threads as it has cores."""
    machine.set_threads(pool.cores)
    return load_engine(recipe, choose_runtime(*runtime))  # which sees that a GPU starts


def _unwrap(result: Result) -> Any:
    if result.error is not None:
        raise result.error
    return result.value

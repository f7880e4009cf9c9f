"""hqsod beside rembg, on the same ONNX file: time and memory an image, cold start, the same map.

    python -m venv R && R/bin/pip install 'rembg[cpu,cli]'
    python benchmarks/rembg.py isnet-general-use.onnx photo.jpg --rembg R/bin

The file is any IS-Net. Beside it two networks are measured that are made here: one of U²-Net's
form with random weights, since U²-Net is what rembg runs by default, and one that costs nothing.
Both sides prepare images as rembg does. Each side has a process of its own; they take turns over
the photograph, one thread each, and then start afresh by their commands. Times are the
processor's, which a busy machine hardly changes; ratios are medians over the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import onnx
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from PIL import Image

from common import ROOT, machine, report
from u2net import write_u2net

AS_REMBG = {"divisor": "maximum", "resampling": "lanczos", "stretched": True}
# By the name of rembg's class, and so of the file.
PREPARATIONS = {
    "isnet-general-use": {"mean": [0.5] * 3, "std": [1.0] * 3},
    "u2net": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}
START = """
import re, sys, time
from PIL import Image
{load}
for path in sys.stdin:
    start = time.process_time()
    make(Image.open(path.strip()).convert("RGB"))
    seconds = time.process_time() - start
    most = re.search("VmHWM: *(.*) kB", open("/proc/self/status").read().replace(chr(9), " "))
    print(seconds, int(most[1]) / 1024, flush=True)
"""
# A process begins with the memory of the one that starts it; this one is small.
RUN = """
import os, sys
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(status != 0)
"""
REMBG = """
from rembg import new_session, remove
session = new_session({!r})
make = lambda image: remove(image, session=session, only_mask=True)
"""
HQSOD = """
import hqsod
predict = hqsod.Predictor({!r})
make = lambda image: (predict(image) * 255).round().astype("uint8")
"""


class Cost(NamedTuple):
    """Seconds of the processor, and megabytes at most."""

    seconds: float
    megabytes: float


class Worker:
    """A process that has loaded its network and makes a map for each path it is told."""

    def __init__(self, python: str, load: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, "-P", "-c", START.format(load=load)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __call__(self, photo: Path) -> Cost:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{photo}\n")
        self._process.stdin.flush()
        return Cost(*map(float, self._process.stdout.readline().split()))

    def end(self) -> None:
        self._process.communicate()


def command(arguments: list[str], environment: Mapping[str, str]) -> Cost:
    line = [sys.executable, "-S", "-c", RUN, *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    return Cost(*map(float, done.stdout.split("\n")[-2].split()))


def compare(turns: list[dict[str, Cost]]) -> dict[str, object]:
    """Medians of both sides, and of their ratios: what hqsod takes of what rembg takes."""
    result: dict[str, object] = {}
    for field in Cost._fields:
        values = {side: [getattr(turn[side], field) for turn in turns] for side in turns[0]}
        result[field] = {side: round(median(taken), 2) for side, taken in values.items()}
        pairs = zip(values["hqsod"], values["rembg"], strict=True)
        result[f"{field}_ratio"] = round(median(ours / theirs for ours, theirs in pairs), 2)
    return result


def maps_differ(ours: Path, theirs: Path) -> dict[str, float]:
    one, other = (np.asarray(Image.open(path).convert("L")).astype(int) for path in (ours, theirs))
    off = np.abs(one - other)
    return {"most_levels": int(off.max()), "within_a_level": round(float((off <= 1).mean()), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rembg", type=Path, required=True, help="the folder of its commands")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    photo = options.photo.resolve()
    with tempfile.TemporaryDirectory() as name:
        u2net, nothing = Path(name) / "u2net.onnx", Path(name) / "nothing.onnx"
        write_u2net(u2net)
        onnx.save(network_of_nothing(), nothing)
        cases = {
            f"with {options.network.name}": (options.network, "isnet-general-use"),
            "with U²-Net's form, rembg's default": (u2net, "u2net"),
            "with a network that costs nothing": (nothing, "isnet-general-use"),
        }
        result = {
            "machine": machine("onnxruntime", "pillow"),
            "rembg": _versions(options.rembg),
            **{
                case: measure(*network, photo, options.rembg, options.turns)
                for case, network in cases.items()
            },
        }
    report("rembg", result)


def network_of_nothing() -> onnx.ModelProto:
    """One that takes what IS-Net takes and gives one of its channels: all else is what is left."""
    parts = [("first", [0]), ("last", [1]), ("axis", [1])]
    ports = [
        make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, channels, 1024, 1024))
        for name, channels in (("input", 3), ("output", 1))
    ]
    cut = make_node("Slice", ["input", *(name for name, _ in parts)], ["cut"])
    nodes = [cut, make_node("Sigmoid", ["cut"], ["output"])]
    numbers = [from_array(np.int64(values), name) for name, values in parts]
    graph = make_graph(nodes, "nothing", ports[:1], ports[1:], numbers)
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=9)


def measure(network: Path, name: str, photo: Path, rembg: Path, turns: int) -> dict[str, object]:
    """An image, a cold start, and how the maps differ; `name` is rembg's."""
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / f"{name}.onnx"
        named.symlink_to(network.resolve())
        preparation = AS_REMBG | PREPARATIONS[name]
        named.with_name(f"{named.name}.json").write_text(json.dumps(preparation))
        return {
            "megabytes of the file": round(network.stat().st_size / 1e6),
            "an image": images(named, photo, rembg, turns),
            "cold start, from command to file": starts(named, photo, rembg, turns),
            "maps": maps_differ(*_results(named, photo)),
        }


def images(network: Path, photo: Path, rembg: Path, turns: int) -> dict[str, object]:
    """Costs of an image in a process that has begun, without the first."""
    ours, theirs = environments(network)
    workers = {
        "rembg": Worker(str(rembg / "python"), REMBG.format(network.stem), theirs),
        "hqsod": Worker(sys.executable, HQSOD.format(str(network)), ours),
    }
    taken = [{side: work(photo) for side, work in workers.items()} for _ in range(turns + 1)]
    for worker in workers.values():
        worker.end()
    return compare(taken[1:])


def starts(network: Path, photo: Path, rembg: Path, turns: int) -> dict[str, object]:
    """Costs of the commands, without the first time: then caches are filled, and code compiled."""
    ours, theirs = environments(network)
    map_of_ours, map_of_theirs = _results(network, photo)
    hqsod = [sys.executable, "-m", "hqsod", "predict", str(photo), "--overwrite"]
    hqsod += ["--weights", str(network), "--out", str(map_of_ours.parent)]
    other = [str(rembg / "rembg"), "i", "-m", network.stem, "-om", str(photo), str(map_of_theirs)]
    taken = [
        {"rembg": command(other, theirs), "hqsod": command(hqsod, ours)} for _ in range(turns + 1)
    ]
    return compare(taken[1:])


def environments(network: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Ours and theirs: one thread, and the same file in place of the published one."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    at_home = {"U2NET_HOME": str(network.parent), "MODEL_CHECKSUM_DISABLED": "1"}
    return one_thread | {"PYTHONPATH": str(ROOT / "src")}, one_thread | at_home | {"PYTHONPATH": ""}


def _results(network: Path, photo: Path) -> tuple[Path, Path]:
    folder = network.parent
    return folder / "maps" / f"{photo.stem}.png", folder / "rembg.png"


def _versions(commands: Path) -> dict[str, str]:
    code = "from importlib.metadata import version as v; print(v('rembg'), v('onnxruntime'))"
    done = subprocess.run(
        [commands / "python", "-c", code], capture_output=True, check=True, text=True
    )
    return dict(zip(("rembg", "onnxruntime"), done.stdout.split(), strict=True))


if __name__ == "__main__":
    main()

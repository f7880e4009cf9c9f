"""What each network must do at the least: operations and bytes, and the seconds they take here.

    python benchmarks/floors.py    # prints, and writes benchmarks/results/floors.json

Operations are those of matrix products and convolutions, two for a multiplication and an addition,
counted in a run (SwinIR, whose windows make it linear in the area, on a picture of 64 x 64;
CascadePSP on a crop without data). Bytes are the weights once, and what the network takes and
gives. The floor is operations over the rate of a large square matrix product on this machine, or
bytes over the rate of copying: no program is quicker here without doing less. It is set against the
seconds that the other benchmarks wrote down, with the rate of the machine as it was then.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common import LIGHT_NETWORK, RESULTS, ROOT, machine, report
from hqsod.inference.cascade_refiner import SIDE, crop_windows
from hqsod.models.cascadepsp import build_cascadepsp
from hqsod.models.compact_refiner import CompactRefiner
from hqsod.models.contour_refiner import ContourRefiner
from hqsod.models.purnet import build_purnet
from hqsod.models.small_upscaler import SmallUpscaler, UpscalerSizes
from hqsod.models.swinir import build_swinir

CANVAS = 1600
CPU, META = torch.device("cpu"), torch.device("meta")


def published(name: str, part: str | None, device: torch.device) -> dict[str, Tensor]:
    """Tensors of the shapes of a published checkpoint."""
    shapes = json.loads((ROOT / f"tests/golden/{name}_checkpoint_shapes.json").read_text())
    shapes = shapes[part] if part else shapes
    return {key: torch.zeros(shape, device=device) for key, shape in shapes.items()}


def picture(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.zeros(1, channels, height, width)


def operations(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def jobs() -> dict[str, tuple[nn.Module, Callable[[nn.Module], object], float, int]]:
    """For each job its network, one run of it, how many runs, and values in and out."""
    crops = len(crop_windows((CANVAS, CANVAS), SIDE))

    def crop(network: nn.Module) -> object:
        layers = (picture(SIDE, SIDE, channels).to(META) for channels in (3, 1, 1))
        return network(*layers, wanted=(1,))

    def enlarge(height: int, width: int) -> Callable[[nn.Module], object]:
        return lambda network: network(picture(height, width))

    def mend(network: nn.Module) -> object:
        return network(picture(320, 416), picture(320, 416, 1))

    def draw(network: nn.Module) -> object:
        return network(picture(1600, 1600), picture(1600, 1600, 1))

    swinir = build_swinir(published("swinir", "real_sr_L", CPU))
    with META:
        cascade = build_cascadepsp(published("cascadepsp", None, META))
    purnet, light = build_purnet().eval(), build_purnet(*LIGHT_NETWORK, attention=()).eval()
    small, refiner = SmallUpscaler(UpscalerSizes(features=48, blocks=6)), CompactRefiner().eval()
    contour = ContourRefiner().eval()
    return {
        "SwinIR-L, 128 x 128": (swinir, enlarge(64, 64), 4, 128**2 * 51),
        "SwinIR-L, 400 x 300": (swinir, enlarge(64, 64), 300 * 400 / 64**2, 300 * 400 * 51),
        f"CascadePSP, {CANVAS} x {CANVAS}, every crop": (cascade, crop, crops, CANVAS**2 * 5),
        "PurNet, 320 x 320": (purnet, enlarge(320, 320), 1, 320 * 320 * 4),
        "purnet-light, 256 x 256": (light, enlarge(256, 256), 1, 256 * 256 * 4),
        "hqsod-x4-small, 400 x 300": (small, enlarge(300, 400), 1, 300 * 400 * 51),
        "hqsod-refiner-small, mending, 400 x 300": (refiner, mend, 1, 300 * 400 * 5),
        "hqsod-refiner-small, contour, 1600 x 1600": (contour, draw, 1, 1600 * 1600 * 5),
    }


def copy_rate() -> float:
    """Bytes a second that are read and written in copying."""
    source = torch.empty(64 * 2**20, dtype=torch.float32)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = perf_counter()
        target.copy_(source)
        best = min(best, perf_counter() - start)
    return 2 * source.nbytes / best


def measured() -> dict[str, dict[str, tuple[float, float]]]:
    """By job and precision: seconds taken, and the rate of matrix products at that time."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for file, job, path, names in (
        ("swinir", "SwinIR-L, 128 x 128", ["seconds"], "hqsod_{}"),
        ("purnet", "PurNet, 320 x 320", ["prediction at 320 x 320", "seconds"], "{}"),
        ("cascadepsp", "CascadePSP, one crop of 900", ["crop_seconds"], "hqsod_{}"),
    ):
        if not (RESULTS / f"{file}.json").is_file():
            continue
        result = json.loads((RESULTS / f"{file}.json").read_text())
        rates, seconds = result["machine"], result
        for key in path:
            seconds = seconds[key]
        found[job] = {
            precision: (seconds[names.format(precision)], rates[f"{precision}_gflops"] * 1e9)
            for precision in ("float32", "bf16")
        }
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    about = machine()
    copied = copy_rate()
    rates = {name: float(about[f"{name}_gflops"]) * 1e9 for name in ("float32", "bf16")}
    rows: dict[str, dict[str, object]] = {}
    for name, (network, run, times, pixels) in jobs().items():
        flops = operations(lambda network=network, run=run: run(network)) * times
        size = sum(parameter.numel() for parameter in network.parameters())
        rows[name] = {
            "operations, G": round(flops / 1e9, 1),
            "parameters, M": round(size / 1e6, 2),
            "megabytes in float32": round((4 * size + pixels) / 1e6, 1),
            "seconds of operations": {n: round(flops / r, 4) for n, r in rates.items()},
            "seconds of bytes": round((4 * size + pixels) / copied, 5),
        }
    crop = f"CascadePSP, {CANVAS} x {CANVAS}, every crop"
    share = len(crop_windows((CANVAS, CANVAS), SIDE))
    for name, taken in measured().items():
        whole = rows[name if name in rows else crop]["operations, G"]
        flops = float(str(whole)) * 1e9 / (1 if name in rows else share)
        rows.setdefault(name, {"operations, G": round(flops / 1e9, 1)})
        rows[name]["share of the rate of matrix products"] = {
            precision: round(flops / seconds / rate, 2)
            for precision, (seconds, rate) in taken.items()
        }
    report("floors", {"machine": about, "copied, GB/s": round(copied / 1e9, 1), **rows})


if __name__ == "__main__":
    main()

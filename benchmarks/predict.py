"""Where the time of a prediction goes: reading, preparing, the network, drawing, compressing.

    OMP_NUM_THREADS=1 python benchmarks/predict.py
    OMP_NUM_THREADS=1 python benchmarks/predict.py --compare WEIGHTS FOLDER

Each line is one image of one size through one network, as `hqsod predict` does it: the one that
ships, and the paper's, whose fresh weights take as long as trained ones. Times are of the
processor, so that other programs do not disturb them; with one thread they are what the clock would
show on a free machine. `around` is what the network takes no part in, against the network; a
cut-out, drawn only when asked for, is not in it. `--compare` predicts a folder of photographs in
bf16 and in float32 and says how far the maps lie apart.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from hqsod import weights
from hqsod.cutout import cut_out
from hqsod.encoding import encode_png
from hqsod.images import find_images, read_image
from hqsod.inference.scaling import prepare, restore
from hqsod.models.purnet import build_purnet
from hqsod.predict import Predictor

SIZES = ((300, 400), (1600, 1600))
PAPERS = "resnet50 128"  # backbone and width of the paper's network
ROUNDS = 5


def median_ms(work: Callable[[], object]) -> float:
    """Median processor milliseconds of a few rounds, the first one left out."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times[1:])


def jpeg(size: tuple[int, int]) -> bytes:
    """A photograph of a size."""
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).resize(size[::-1]).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def measure(predictor: Predictor, file: bytes) -> dict[str, float]:
    """Milliseconds of each step."""
    image = read_image(io.BytesIO(file))
    prepared = prepare(image, predictor.size)
    small = predictor.maps([prepared])[0]

    def draw() -> np.ndarray:
        return (restore(small, image.shape[:2]) * 255).round().astype(np.uint8)

    levels = draw()
    return {
        "read": median_ms(lambda: read_image(io.BytesIO(file))),
        "prepare": median_ms(lambda: prepare(image, predictor.size)),
        "network": median_ms(lambda: predictor.maps([prepared])),
        "draw": median_ms(draw),
        "compress": median_ms(lambda: encode_png(levels)),
        "cut out": median_ms(lambda: cut_out(image, levels)),
    }


def compare(path: str, folder: Path) -> None:
    """Print how far bf16 lies from float32 on photographs."""
    exact, quick = (Predictor(path, precision=name, size=320) for name in ("float32", "bf16"))
    means, largest, flipped = [], [], []
    for photo in find_images(folder):
        wanted, got = exact(photo), quick(photo)
        difference = np.abs(wanted - got)
        means.append(difference.mean())
        largest.append(difference.max())
        flipped.append(((wanted > 0.5) != (got > 0.5)).mean())
    print(
        f"{len(means)} photographs: mean difference {np.mean(means):.5f}, of the worst photograph "
        f"{max(means):.5f}, of the worst pixel {max(largest):.4f}; "
        f"{np.mean(flipped):.3%} of the pixels change sides at 0.5"
    )


def main() -> None:
    """Print a table, or a comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", nargs=2, metavar=("WEIGHTS", "FOLDER"))
    if chosen := parser.parse_args().compare:
        compare(chosen[0], Path(chosen[1]))
    else:
        profile()


def profile() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paper.safetensors"
        weights.save(path, build_purnet("resnet50", 128).state_dict(), {})
        predictors = {"purnet-light": Predictor()}
        for precision in ("float32", "bf16"):
            predictors[f"{PAPERS} {precision}"] = Predictor(path, precision=precision)
        for name, predictor in predictors.items():
            for size in SIZES:
                steps = measure(predictor, jpeg(size))
                around = sum(steps.values()) - steps["network"] - steps["cut out"]
                row = "  ".join(f"{step} {ms:7.1f}" for step, ms in steps.items())
                share = around / steps["network"]
                print(f"{name:20} {size[0]:4} x {size[1]:4}  {row}  ms  around {share:.2f}")


if __name__ == "__main__":
    main()

"""Where the time of a prediction goes: reading, preparing, the network, drawing, compressing.

    OMP_NUM_THREADS=1 python benchmarks/predict.py

Each line is one picture of one size through one network, as `hqsod predict` does it; fresh weights
take as long as trained ones. `around` is what the network takes no part in, against the network.
"""

from __future__ import annotations

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
from hqsod.images import encode_png, read_image
from hqsod.models.purnet import build_purnet
from hqsod.predict import Predictor, restore

SIZES = ((300, 400), (1600, 1600))
NETWORKS = (("light", 32), ("resnet50", 128))
ROUNDS = 5


def median_ms(work: Callable[[], object]) -> float:
    """Median milliseconds of a few rounds, the first one left out."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def jpeg(size: tuple[int, int]) -> bytes:
    """A photograph of a size."""
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).resize(size[::-1]).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def measure(predictor: Predictor, file: bytes) -> dict[str, float]:
    """Milliseconds of each step."""
    image = read_image(io.BytesIO(file))
    prepared = predictor.prepare(image)
    small = predictor.maps([prepared])[0]

    def draw() -> np.ndarray:
        return (restore(small, image.shape[:2]) * 255).round().astype(np.uint8)

    levels = draw()
    return {
        "read": median_ms(lambda: read_image(io.BytesIO(file))),
        "prepare": median_ms(lambda: predictor.prepare(image)),
        "network": median_ms(lambda: predictor.maps([prepared])),
        "draw": median_ms(draw),
        "compress": median_ms(lambda: encode_png(levels)),
    }


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        for backbone, width in NETWORKS:
            path = Path(folder) / f"{backbone}.safetensors"
            weights.save(path, build_purnet(backbone, width).state_dict(), {})
            for precision in ("float32", "bf16"):
                predictor = Predictor(path, precision=precision)
                for size in SIZES:
                    steps = measure(predictor, jpeg(size))
                    around = sum(steps.values()) - steps["network"]
                    row = "  ".join(f"{name} {ms:7.1f}" for name, ms in steps.items())
                    share = around / steps["network"]
                    name = f"{backbone} {width} {precision}"
                    print(f"{name:22} {size[0]:4} x {size[1]:4}  {row}  ms  around {share:.2f}")


if __name__ == "__main__":
    main()

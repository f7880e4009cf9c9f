"""What a stranger can do with files, connections and kills: the figures of docs/security.md.

    OMP_NUM_THREADS=1 python benchmarks/attack.py

Each hostile file is read in a process of its own, beside an ordinary file of as many pixels; 900
damaged files are read; 500 slow clients of four kinds stand beside honest requests; `apply` is
killed at random moments.
"""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from hqsod import images
from hqsod.decoding import FORMATS
from hqsod.errors import InputError
from hqsod.review.apply import apply
from tests import hostile
from tests.built import built
from tests.conftest import random_picture
from tests.test_web import HALF, begin, length, serving

DAMAGED, CLIENTS, REQUESTS, KILLS = 900, 500, 20, 30
NOTHING = Image.new("RGB", (8, 8))
# What each costs to make is little; what it would cost to read is in docs/security.md.
FILES: dict[str, Callable[[], bytes]] = {
    "ordinary, 8000 x 8000": lambda: hostile.encoded(Image.new("RGB", (8000, 8000))),
    "JPEG of 4,000 scans, 5000 x 5000": lambda: hostile.many_scans(5000, 4000),
    "JPEG of 5 million segments": lambda: hostile.many_segments(5 * 10**6),
    "PNG of 5 million chunks": lambda: hostile.many_chunks(5 * 10**6),
    "PNG of 3.6 billion pixels": lambda: hostile.bomb(60_000),
    "BMP of 5 million runs": lambda: hostile.many_runs(5 * 10**6),
    "TIFF, a tile of 1.6 billion pixels": lambda: hostile.tiled_tiff(40_000, 40_000),
    "TIFF, a JPEG of 90 scans in it": lambda: hostile.jpeg_in_tiff(8000, 90),
    "TIFF, tags over each other": lambda: hostile.overlapping_tags(10**6),
    "WebP, EXIF over itself": lambda: hostile.encoded(
        NOTHING, "WEBP", exif=b"Exif\0\0" + hostile.overlapping_tags(10**6)
    ),
    "WebP, a profile of 40,000 steps": lambda: hostile.encoded(
        NOTHING, "WEBP", icc_profile=hostile.endless_profile(40_000)
    ),
}
READ = """
import sys, time
from pathlib import Path
from hqsod import images
start = time.process_time()
try:
    told = "read, {1} x {0}".format(*images.read_image(Path(sys.argv[1])).shape)
except images.InputError as error:
    told = "refused: " + error.got.partition(": ")[2]
print(f"{time.process_time() - start:5.1f} s  {told[:90]}")
"""


def hostile_files(folder: Path) -> Iterator[str]:
    """Processor time and outcome of each of `FILES`."""
    for name, make in FILES.items():
        file = folder / "file"
        file.write_bytes(make())
        command = [sys.executable, "-W", "ignore", "-c", READ, file]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        yield f"{name:36} {file.stat().st_size / 1000:7.0f} kB {told}"


def damaged_files() -> Counter[str]:
    """How reading ends of files with bytes changed, taken out or put in."""
    chance, ends = random.Random(0), Counter[str]()
    for number in range(DAMAGED):
        image = Image.fromarray(random_picture((8, 6, 3)))
        data = bytearray(hostile.encoded(image, FORMATS[number % len(FORMATS)]))
        for _ in range(chance.randint(1, 6)):
            start = chance.randrange(min(len(data), chance.choice((64, 9999))) or 1)
            end = start + chance.choice((0, 1, 1, 4, 10**6))
            data[start:end] = chance.randbytes(chance.randint(0, 4))
        try:
            images.read_image(io.BytesIO(data))
            ends["read"] += 1
        except InputError:
            ends["refused"] += 1
        except Exception as error:
            ends[type(error).__name__] += 1
    return ends


def slow_clients(half: str) -> list[float]:
    """Seconds of each honest request beside slow clients; a request that fails raises."""
    seconds = []
    with serving(most=128) as port, ExitStack() as stack:
        for _ in range(CLIENTS):
            with suppress(ConnectionError):
                stack.enter_context(closing(begin(port, half)))
        for _ in range(REQUESTS):
            start = time.monotonic()
            assert length(port) == (200, 5)
            seconds.append(time.monotonic() - start)
    return seconds


def killed_applies(folder: Path) -> tuple[int, int]:
    """Runs of `apply` that were killed before their end, and those after which a mask was wrong."""
    chance, killed, wrong = random.Random(0), 0, 0
    data = built(folder / "set", 12, size=48)
    start = time.monotonic()
    apply(data)
    whole, took = _final(data), time.monotonic() - start
    for _ in range(KILLS):
        for mask in (data / "final-masks").iterdir():
            mask.unlink()
        child = os.fork()
        if not child:
            apply(data)
            os._exit(0)
        time.sleep(chance.uniform(0, took))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
        apply(data)
        wrong += _final(data) != whole
    return killed, wrong


def _final(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data / "final-masks").iterdir()}


def main() -> None:
    """Print every figure."""
    with TemporaryDirectory() as name:
        killed, wrong = killed_applies(Path(name))
        print(
            f"apply: {killed} of {KILLS} runs killed, {wrong} wrong after the next run", flush=True
        )
        for line in hostile_files(Path(name)):
            print(line, flush=True)
    print(f"{DAMAGED} damaged files: {dict(damaged_files())}", flush=True)
    for kind, half in HALF.items():
        seconds = slow_clients(half)
        print(
            f"{CLIENTS} clients that stop at the {kind}: {len(seconds)} of {REQUESTS} answered, "
            f"median {median(seconds):.2f} s, worst {max(seconds):.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""The service under load: requests per second, latency, what is lost, memory.

    OMP_NUM_THREADS=1 python benchmarks/serve.py [--quick]

`hqsod serve` runs as users start it, with purnet-light, in a second process; the clients are
threads of this one, each with a connection it keeps, on 127.0.0.1. The floor is the network alone,
in batches as large as the service's, run just before and just after each load. Where other
programs take the processor, the ratio in processor time is the one to read. Loads are bounded in
requests and in time.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean, median, quantiles
from time import perf_counter, process_time

import numpy as np
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families as parse
from skimage import data

from common import machine, report
from hqsod.predict import Predictor

CLIENTS = (1, 8, 32)
BATCHES = (1, 8)
SIZES = ((300, 400), (400, 300), (480, 640))  # of the pictures sent
FLOOR_PICTURES = 24
SOON = 200  # requests after which memory is looked at first
LATEST = 1200.0  # seconds that everything may take


@dataclass(frozen=True)
class Load:
    """What came of some requests."""

    seconds: float
    statuses: Counter[int]
    latencies: Sequence[float]

    def figures(self) -> dict[str, object]:
        """In numbers for the results."""
        answered = self.statuses[200]
        return {
            "requests": len(self.latencies),
            "lost": len(self.latencies) - answered,
            "per_second": round(answered / self.seconds, 2),
            "median_ms": round(1000 * median(self.latencies)),
            "p95_ms": round(1000 * quantiles(self.latencies, n=20)[-1]),
        }


def photographs() -> list[bytes]:
    """JPEG files of usual sizes."""
    files = []
    for height, width in SIZES:
        buffer = io.BytesIO()
        Image.fromarray(data.astronaut()).resize((width, height)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


@contextmanager
def service(*options: str) -> Iterator[int]:
    """The port of a service."""
    command = [sys.executable, "-m", "hqsod", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    try:
        yield next(int(m[1]) for line in lines if (m := re.search(r"open http.*:(\d+)/", line)))
    finally:
        process.terminate()
        process.wait()


def load(port: int, clients: int, requests: int, paths: Sequence[str], end: float) -> Load:
    """Ask so often, from so many clients at once, each as soon as it has its last answer."""
    files = photographs()

    def client(number: int) -> list[tuple[int, float]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        answers = []
        for index in range(number, requests, clients):
            start = perf_counter()
            if start > end:
                raise TimeoutError(f"no more than {LATEST:.0f} s")
            connection.request("POST", paths[index % len(paths)], files[index % len(files)])
            answer = connection.getresponse()
            answer.read()
            answers.append((answer.status, perf_counter() - start))
        connection.close()
        return answers

    start = perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for part in pool.map(client, range(clients)) for answer in part]
    seconds = perf_counter() - start
    return Load(seconds, Counter(status for status, _ in answers), [time for _, time in answers])


def floor(predictor: Predictor, batch: int) -> tuple[float, float]:
    """Seconds and processor seconds that the network alone takes for a picture."""
    pictures = [np.zeros((predictor.size, predictor.size, 3), np.uint8)] * batch
    predictor.maps(pictures)
    start, busy = perf_counter(), process_time()
    for _ in range(FLOOR_PICTURES // batch):
        predictor.maps(pictures)
    return (perf_counter() - start) / FLOOR_PICTURES, (process_time() - busy) / FLOOR_PICTURES


def metrics(port: int) -> dict[str, float]:
    """The service's own figures, those of all paths and statuses added up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    figures: Counter[str] = Counter()
    for family in parse(connection.getresponse().read().decode()):
        for sample in family.samples:
            figures[sample.name] += sample.value
    return figures


def under_load(batch: int, requests: int, end: float) -> list[dict[str, object]]:
    """Figures for each number of clients."""
    predictor, rows = Predictor(), []
    with service("--batch", str(batch)) as port:
        for clients in CLIENTS:
            load(port, clients, clients, ["/saliency"], end)
            alone, before = floor(predictor, batch), metrics(port)
            done = load(port, clients, requests, ["/saliency"], end)
            after = metrics(port)
            seconds, alone = map(mean, zip(alone, floor(predictor, batch), strict=True))
            spent = {name: after[name] - before[name] for name in after}
            batches = spent["hqsod_batch_images_sum"] / spent["hqsod_batch_images_count"]
            busy = spent["process_cpu_seconds_total"] / requests
            row = {"clients": clients, "largest_batch": batch, "mean_batch": round(batches, 2)}
            row |= done.figures()
            row["network_alone_per_second"] = round(1 / seconds, 2)
            row["cpu_ms"] = round(1e3 * busy, 1)
            row["network_alone_cpu_ms"] = round(1e3 * alone, 1)
            row["share_of_floor_cpu"] = round(alone / busy, 2)
            rows.append(row)
            print(row, file=sys.stderr)
    return rows


def memory(requests: int, end: float) -> dict[str, object]:
    """Megabytes in memory after some requests and after all, maps and cut-outs by turns.

    The network sees 64 x 64, so that this many requests take minutes; the pictures stay as large.
    """
    name, paths = "process_resident_memory_bytes", ["/saliency", "/cutout"]
    with service("--size", "64") as port:
        first = load(port, 8, SOON, paths, end)
        soon = metrics(port)[name] / 1e6
        rest = load(port, 8, requests - SOON, paths, end)
        late = metrics(port)[name] / 1e6
    return {
        "requests": requests,
        "lost": requests - first.statuses[200] - rest.statuses[200],
        f"mb_after_{SOON}": round(soon),
        f"mb_after_{requests}": round(late),
    }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of it, written nowhere")
    quick = parser.parse_args().quick
    share, end = (10 if quick else 1), perf_counter() + LATEST
    rows = [row for batch in BATCHES for row in under_load(batch, 96 // share, end)]
    kept = memory(2000 if not quick else SOON + 40, end)
    result = {"machine": machine("fastapi", "uvicorn"), "load": rows, "memory": kept}
    report("serve", result, write=not quick)


if __name__ == "__main__":
    main()

"""Networks of a build that compute at the same time."""

from __future__ import annotations

from threading import Barrier, Thread

import numpy as np
import torch

from hqsod.building.networks import Networks, Stopwatch

MASK = np.zeros((4, 4), np.uint8)
IMAGE = np.zeros((4, 4, 3), np.uint8)
PATIENCE = 30  # seconds


class Meeting:
    """An upscaler and a refiner that each wait until the other computes too."""

    name, weights, scale = "meeting", "", 4

    def __init__(self) -> None:
        self.barrier, self.threads = Barrier(2), list[int]()

    def __call__(self, *layers):
        self.threads.append(torch.get_num_threads())
        self.barrier.wait(PATIENCE)
        return layers[-1]


def test_two_networks_compute_at_a_time_and_share_the_threads():
    meeting, before = Meeting(), torch.get_num_threads()
    with Networks(meeting, meeting, None, at_once=2) as networks:
        refining = Thread(target=networks.refine, args=(IMAGE, MASK, Stopwatch()))
        refining.start()
        watch = Stopwatch()
        (upscaled,) = networks.upscale([IMAGE], [watch])
        refining.join(PATIENCE)
    assert upscaled is IMAGE
    assert watch.seconds.keys() == {"upscale"}
    assert meeting.threads == [max(1, before // 2)] * 2
    assert torch.get_num_threads() == before

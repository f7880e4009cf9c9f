"""Scores against the reference numbers, and what must hold for any pair of 8-bit maps."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import convolve, distance_transform_edt, sobel

from hqsod import metrics
from hqsod.errors import InputError, SettingsError

GOLDEN = Path(__file__).parent / "golden"
NUMBERS = json.loads((GOLDEN / "evaluation.json").read_text())
PAIRS = sorted(NUMBERS["standard"]["per_image"])
NAMES = {
    "MAE": "mae",
    "Sm": "s_measure",
    "wFm": "f_weighted",
    "adpFm": "f_adaptive",
    "meanFm": "f_mean",
    "maxFm": "f_max",
    "adpEm": "e_adaptive",
    "meanEm": "e_mean",
    "maxEm": "e_max",
    "precision": "precision",
    "recall": "recall",
}


def read(part: str, name: str) -> np.ndarray:
    return cv2.imread(str(GOLDEN / "evaluation" / part / name), cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize("name", PAIRS)
def test_standard_equals_the_reference(name: str) -> None:
    scores = metrics.score(read("pred", name), read("gt", name))
    for key, expected in NUMBERS["standard"]["per_image"][name].items():
        assert scores[NAMES[key]] == pytest.approx(expected, abs=1e-6), key


@pytest.mark.parametrize("name", PAIRS)
def test_purnet_equals_the_published_code(name: str) -> None:
    scores = metrics.score(read("pred", name), read("gt", name), "purnet")
    for key, expected in NUMBERS["purnet"]["per_image"][name].items():
        if expected is not None:  # the published code failed there
            assert scores[NAMES[key]] == pytest.approx(expected, abs=1e-6), key
    assert all(map(math.isfinite, scores.values()))


def both(min_side: int = 1, max_side: int = 24) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two uint8 arrays of one size; few levels, so that ties and constant parts come up."""
    level = st.sampled_from([0, 1, 64, 127, 128, 129, 254, 255]) | st.integers(0, 255)
    side = st.integers(min_side, max_side)
    return st.tuples(side, side).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=level), hnp.arrays(np.uint8, shape, elements=level)
        )
    )


@settings(max_examples=200, deadline=None)
@given(both())
@pytest.mark.parametrize("protocol", metrics.PROTOCOLS)
def test_scores_are_finite_and_in_range(
    protocol: metrics.Protocol, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    scores = metrics.score(*pair, protocol, also=list(metrics.MEASURES))
    beyond_one = 1 / max(pair[0].size - 1, 1)  # the E-measure's, as published
    for name, value in scores.items():
        top = 1 + (beyond_one if name.startswith("e_") else 0)
        assert -1e-6 <= value <= top + 1e-6, name


@settings(max_examples=100, deadline=None)
@given(both(min_side=2))
def test_a_perfect_map_is_perfect(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth = np.where(pair[1] > 128, 255, 0).astype(np.uint8)
    scores = metrics.score(truth, truth, also=list(metrics.MEASURES))
    empty = not truth.any()
    for name in ("f_max", "f_adaptive", "f_weighted"):
        assert scores[name] == pytest.approx(0 if empty else 1)
    for name in ("s_measure", "iou", "dice", "mba", "biou", "msiou"):
        assert scores[name] == pytest.approx(1), name
    assert scores["mae"] == scores["ber"] == 0
    assert scores["e_max"] >= 1


@settings(max_examples=100, deadline=None)
@given(both())
def test_inverting_both_keeps_the_symmetric_scores(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, truth = pair[0], np.where(pair[1] > 128, 255, 0).astype(np.uint8)
    prediction[0, 0], prediction[-1, -1] = 0, 255  # so that both are stretched alike
    straight = metrics.score(prediction, truth, also=["ber"])
    inverted = metrics.score(255 - prediction, 255 - truth)
    assert inverted["mae"] == pytest.approx(straight["mae"])
    against = metrics.score(255 - prediction, truth)
    if prediction.size > 1:
        assert against["mae"] == pytest.approx(1 - straight["mae"])


@settings(max_examples=100, deadline=None)
@given(both())
def test_swapping_two_masks_keeps_overlap_and_error(pair: tuple[np.ndarray, np.ndarray]) -> None:
    ours, theirs = (np.where(part > 128, 255, 0).astype(np.uint8) for part in pair)
    one, other = metrics.compare(ours, theirs), metrics.compare(theirs, ours)
    for measure in (metrics.iou, metrics.dice, metrics.biou):
        assert measure(one) == pytest.approx(measure(other))
    if ours.any() and theirs.any():
        assert metrics.curves(metrics.tally(one)).precision[128] == pytest.approx(
            metrics.curves(metrics.tally(other)).recall[128]
        )


def weighted_f_as_written(prediction: np.ndarray, truth: np.ndarray) -> float:
    """The paper's steps over the whole picture in double precision."""
    inside = truth > 128
    saliency = prediction / 255
    if saliency.max() > saliency.min():
        saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    distance, (rows, columns) = distance_transform_edt(~inside, return_indices=True)
    error = np.abs(saliency - inside)
    axis = np.exp(-(np.arange(-3, 4) ** 2) / 50)
    window = np.outer(axis, axis) / np.outer(axis, axis).sum()
    around = convolve(error[rows, columns], window, mode="constant")
    lesser = np.where(inside, np.minimum(error, around), error)
    weighted = lesser * np.where(inside, 1, 2 - 0.5 ** (distance / 5))
    missed, false = weighted[inside].sum(), weighted[~inside].sum()
    recall = 1 - missed / inside.sum()
    precision = (inside.sum() - missed) / (inside.sum() - missed + false + 1e-16)
    return float(2 * recall * precision / (recall + precision + 1e-16))


@settings(max_examples=200, deadline=None)
@given(both(max_side=40))
def test_weighted_f_equals_the_formula(pair: tuple[np.ndarray, np.ndarray]) -> None:
    if (pair[1] > 128).any():
        ours = metrics.weighted_f(metrics.compare(*pair))
        assert ours == pytest.approx(weighted_f_as_written(*pair), abs=1e-6)


def test_weighted_f_far_from_a_small_object() -> None:
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 256, (500, 700), np.uint8)
    truth = np.zeros((500, 700), np.uint8)
    truth[40:43, 600:605] = truth[200, 20] = 255
    truth[0, 0] = 255
    for rows in (slice(None), slice(30, 60)):  # across the picture, and one corner of it
        truth_part = np.ascontiguousarray(truth[rows])
        prediction_part = np.ascontiguousarray(prediction[rows])
        ours = metrics.weighted_f(metrics.compare(prediction_part, truth_part))
        expected = weighted_f_as_written(prediction_part, truth_part)
        assert ours == pytest.approx(expected, abs=1e-7)


@settings(max_examples=100, deadline=None)
@given(both())
def test_counts_are_those_of_every_threshold(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, truth = pair
    compared = metrics.compare(prediction, truth)
    tally = metrics.tally(compared)
    steps = (compared.scale * 255).astype(np.uint8)[prediction]
    inside = truth > 128
    for threshold in (0, 1, 100, 255):
        assert tally.hits[threshold] == np.count_nonzero(inside & (steps >= threshold))
        assert tally.alarms[threshold] == np.count_nonzero(~inside & (steps >= threshold))
    assert (tally.area, tally.pixels) == (np.count_nonzero(inside), inside.size)


def e_measure_as_written(binary: np.ndarray, inside: np.ndarray) -> float:
    ours, theirs = (part - part.mean() for part in (binary.astype(float), inside.astype(float)))
    alignment = 2 * ours * theirs / (ours**2 + theirs**2 + np.spacing(1))
    return float(((alignment + 1) ** 2 / 4).sum() / (inside.size - 1))


@settings(max_examples=100, deadline=None)
@given(both(min_side=2))
def test_e_measure_equals_the_formula(pair: tuple[np.ndarray, np.ndarray]) -> None:
    inside = pair[1] > 128
    if inside.any() and not inside.all():
        compared = metrics.compare(*pair)
        steps = (compared.scale * 255).astype(np.uint8)[pair[0]]
        curve = metrics.curves(metrics.tally(compared)).e_measure
        for threshold in (0, 77, 255):
            assert curve[threshold] == pytest.approx(
                e_measure_as_written(steps >= threshold, inside), abs=1e-9
            )


def test_a_foreground_in_the_last_row_and_column_is_scored() -> None:
    prediction = np.arange(64, dtype=np.uint8).reshape(8, 8)
    truth = np.zeros((8, 8), np.uint8)
    truth[7, 7] = 255
    assert 0 <= metrics.score(prediction, truth)["s_measure"] <= 1


def test_counts_beyond_what_float32_holds_are_exact() -> None:
    prediction = np.zeros((4099, 4099), np.uint8)
    truth = np.full((4099, 4099), 255, np.uint8)
    assert metrics.compare(prediction, truth).foreground[0] == 4099**2


def mba_as_written(binary: np.ndarray, truth: np.ndarray) -> float:
    """Every disk laid on every pixel; slow, for small pictures."""
    height, width = truth.shape
    accuracies = []
    for step in range(5):
        radius = 1 + int(((height + width) / 300 - 1) / 5 * step)
        size = (2 * radius + 1, 2 * radius + 1)
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size).astype(bool)
        inner = np.pad(truth, radius, constant_values=True)
        outer = np.pad(truth, radius, constant_values=False)
        windows = np.lib.stride_tricks.sliding_window_view
        eroded = (windows(inner, size) | ~disk).all(axis=(2, 3))
        dilated = (windows(outer, size) & disk).any(axis=(2, 3))
        band = dilated & ~eroded
        accuracies.append((binary == truth)[band].mean())
    return float(np.mean(accuracies))


@pytest.mark.parametrize("name", ["chelsea-shifted.png", "thin.png"])
def test_mba_equals_its_definition(name: str) -> None:
    # Enlarged, so that the radii differ: 1, 1, 2, 3, 4.
    prediction, truth = (
        np.kron(read(part, name), np.ones((2, 2), np.uint8)) for part in ("pred", "gt")
    )
    expected = mba_as_written(prediction >= 128, truth > 128)
    assert metrics.mba(metrics.compare(prediction, truth)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["chelsea-noisy.png", "thin.png", "gt-full.png"])
def test_boundary_iou_equals_its_definition(name: str) -> None:
    prediction, truth = read("pred", name), read("gt", name)
    width = round(0.02 * math.hypot(*truth.shape))

    def rim(mask: np.ndarray) -> np.ndarray:
        framed = np.pad(mask, 1).astype(np.uint8)
        return mask & ~cv2.erode(framed, np.ones((3, 3)), iterations=width)[1:-1, 1:-1].astype(bool)

    ours, theirs = rim(prediction >= 128), rim(truth > 128)
    expected = (ours & theirs).sum() / (ours | theirs).sum()
    assert metrics.biou(metrics.compare(prediction, truth)) == pytest.approx(expected)


def msiou_as_written(binary: np.ndarray, truth: np.ndarray) -> float:
    """Boxes of every size laid from the lower right corner, one by one."""
    masks = [np.pad(mask, 1).astype(np.float32) for mask in (binary, truth)]
    edges = [
        np.hypot(sobel(mask, 0, mode="constant"), sobel(mask, 1, mode="constant"))[1:-1, 1:-1] > 0
        for mask in masks
    ]
    shares = []
    for size in 2 ** np.arange(10):
        held: tuple[set[tuple[int, int]], ...] = tuple(
            {(int(y) // size, int(x) // size) for y, x in np.argwhere(edge[::-1, ::-1])}
            for edge in edges
        )
        shares.append((len(held[0] & held[1]) + 1) / (len(held[1]) + 1))
    return float(np.mean((np.array(shares[1:]) + shares[:-1]) / 2))


@settings(max_examples=50, deadline=None)
@given(both(max_side=40))
def test_multi_scale_iou_equals_its_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    expected = msiou_as_written(pair[0] >= 128, pair[1] > 128)
    assert metrics.msiou(metrics.compare(*pair)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        (np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)),
        (np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)),
        ([[0]], np.zeros((1, 1), np.uint8)),
    ],
)
@pytest.mark.parametrize("protocol", metrics.PROTOCOLS)
def test_other_arrays_are_refused(
    prediction: np.ndarray, truth: np.ndarray, protocol: metrics.Protocol
) -> None:
    with pytest.raises(InputError):
        metrics.score(prediction, truth, protocol)


def test_unknown_names_are_refused() -> None:
    pair = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    with pytest.raises(SettingsError, match="mba"):
        metrics.score(*pair, also=["fscore"])
    with pytest.raises(SettingsError, match="standard or purnet"):
        metrics.score(*pair, "matlab")  # type: ignore[arg-type]  # what a user may type
    with pytest.raises(SettingsError, match="gt_threshold"):
        metrics.ScoreSettings("purnet", gt_threshold=0)


def test_purnet_leaves_grey_ground_truth_out_of_precision() -> None:
    prediction = np.array([[255, 255, 255, 0]], np.uint8)
    truth = np.array([[255, 100, 0, 0]], np.uint8)
    scores = metrics.score(prediction, truth, "purnet")
    assert (scores["precision"], scores["recall"]) == (0.5, 1.0)
    assert scores["mae"] == 0.5


def test_the_ground_truth_threshold_moves_grey_pixels() -> None:
    prediction = np.array([[255, 255, 0]], np.uint8)
    truth = np.array([[255, 100, 0]], np.uint8)
    at_128 = metrics.score_pair(prediction, truth, metrics.ScoreSettings()).scores["mae"]
    at_50 = metrics.score_pair(prediction, truth, metrics.ScoreSettings(gt_threshold=50)).scores[
        "mae"
    ]
    assert (at_128, at_50) == (pytest.approx(1 / 3), 0)

"""`hqsod evaluate` whole: folders in, scores out; wrong files listed; nothing done twice."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hqsod import cli, metrics
from hqsod.errors import InputError
from hqsod.evaluate import dataset_name, evaluate, score_cache
from hqsod.evaluate.matching import ground_truth_folder

GOLDEN = Path(__file__).parent / "golden"
PREDICTIONS, TRUTHS = GOLDEN / "evaluation" / "pred", GOLDEN / "evaluation" / "gt"
NUMBERS = json.loads((GOLDEN / "evaluation.json").read_text())
STANDARD = {
    "mae": "MAE",
    "f_max": "maxFm",
    "f_mean": "meanFm",
    "f_adaptive": "adpFm",
    "f_weighted": "wFm",
    "s_measure": "Sm",
    "e_max": "maxEm",
    "e_mean": "meanEm",
    "e_adaptive": "adpEm",
}
PURNET = {"mae": "MAE", "f_weighted": "wFm", "precision": "precision", "recall": "recall"}
DAVIS = Path(__file__).parents[1].parent / "shared" / "data" / "test-davis"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of kept scores, of this test alone."""
    monkeypatch.setenv("HQSOD_CACHE", str(tmp_path / "cache"))
    return score_cache.default_path()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The command's exit status."""
    monkeypatch.setattr(sys, "argv", ["hqsod", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def make_set(folder: Path, count: int, size: tuple[int, int] = (24, 32)) -> tuple[Path, Path]:
    """`count` random maps and ground truths in `folder/pred` and `folder/gt`."""
    rng = np.random.default_rng(count)
    for name in ("pred", "gt"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            coarse = rng.integers(0, 256, (4, 4), np.uint8)
            cv2.imwrite(str(folder / name / f"{index:05}.png"), cv2.resize(coarse, size[::-1]))
    return folder / "pred", folder / "gt"


@pytest.mark.parametrize(("protocol", "names"), [("standard", STANDARD), ("purnet", PURNET)])
def test_json_holds_the_reference_numbers(
    protocol: str, names: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.json"
    options = ["--pred", PREDICTIONS, "--gt", TRUTHS, "--protocol", protocol, "--json", out]
    assert run(monkeypatch, *options) == 0
    found = json.loads(out.read_text())
    assert found["protocol"] == protocol
    assert found["settings"]["protocol"] == protocol
    scores = found["datasets"]["evaluation"]["pred"]
    assert set(scores) == {"mean", "per_image"}
    expected = NUMBERS[protocol]["per_image"]
    assert set(scores["per_image"]) == {Path(name).stem for name in expected}
    for name, values in expected.items():
        image = scores["per_image"][Path(name).stem]
        assert list(image) == list(names)
        for key, theirs in names.items():
            if values[theirs] is not None:
                assert image[key] == pytest.approx(values[theirs], abs=1e-6)


def test_the_standard_mean_is_the_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.json"
    assert run(monkeypatch, "--pred", PREDICTIONS, "--gt", TRUTHS, "--json", out) == 0
    mean = json.loads(out.read_text())["datasets"]["evaluation"]["pred"]["mean"]
    assert set(mean) == {*STANDARD, "f_max_pr", "f_mean_pr"}
    for key, theirs in STANDARD.items():
        assert mean[key] == pytest.approx(NUMBERS["standard"]["mean"][theirs], abs=1e-6)


def test_the_purnet_mean_is_the_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = NUMBERS["purnet"]["mean"]
    for part in ("pred", "gt"):
        (tmp_path / "ECSSD" / part).mkdir(parents=True)
        for name in expected["over"]:
            shutil.copy(GOLDEN / "evaluation" / part / name, tmp_path / "ECSSD" / part)
    options = ["--pred", tmp_path / "ECSSD" / "pred", "--gt", tmp_path / "ECSSD" / "gt"]
    options += ["--protocol", "purnet", "--json", tmp_path / "scores.json", "--name", "Ours"]
    assert run(monkeypatch, *options, "--compare", "purnet-paper") == 0
    mean = json.loads((tmp_path / "scores.json").read_text())["datasets"]["ECSSD"]["Ours"]["mean"]
    assert list(mean) == ["mae", "f_weighted", "f", "f_max_pr", "f_mean_pr"]
    for key, theirs in {"mae": "MAE", "f_weighted": "wFm", "f": "F"}.items():
        assert mean[key] == pytest.approx(expected[theirs], abs=1e-6)


def test_f_from_the_mean_precision_recall_curve(tmp_path: Path) -> None:
    found = evaluate({"m": PREDICTIONS}, {"d": TRUTHS}, metrics.ScoreSettings())
    result = found.datasets["d"].methods["m"]
    precision, recall = result.curves["precision"], result.curves["recall"]
    with np.errstate(invalid="ignore"):
        curve = np.nan_to_num(1.3 * precision * recall / (0.3 * precision + recall))
    assert result.mean["f_max_pr"] == pytest.approx(curve.max())
    assert result.mean["f_mean_pr"] == pytest.approx(curve.mean())
    assert result.mean["f_max_pr"] != pytest.approx(result.mean["f_max"], abs=1e-4)


def test_several_methods_and_data_sets_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for dataset in ("one", "two"):
        predictions, _ = make_set(tmp_path / "data" / dataset, 3)
        for method in ("A", "b"):
            shutil.copytree(predictions, tmp_path / "maps" / method / dataset)
    options = ["--pred", tmp_path / "maps" / "A", "--pred", f"B={tmp_path / 'maps' / 'b'}"]
    options += ["--gt", tmp_path / "data" / "one" / "gt"]
    options += ["--gt", f"Second={tmp_path / 'data' / 'two' / 'gt'}", "--json", tmp_path / "s.json"]
    assert run(monkeypatch, *options) == 1
    assert "no folder Second in it" in capsys.readouterr().err
    for method in ("A", "b"):
        (tmp_path / "maps" / method / "two").rename(tmp_path / "maps" / method / "Second")
    assert run(monkeypatch, *options) == 0
    found = json.loads((tmp_path / "s.json").read_text())["datasets"]
    assert {dataset: list(methods) for dataset, methods in found.items()} == {
        "one": ["A", "B"],
        "Second": ["A", "B"],
    }


def test_further_measures_are_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--pred", PREDICTIONS, "--gt", TRUTHS, "--json", tmp_path / "s.json"]
    assert run(monkeypatch, *options, "--also", "mba, biou", "--dataset", "D") == 0
    method = json.loads((tmp_path / "s.json").read_text())["datasets"]["D"]["pred"]
    assert {"mba", "biou"} <= set(method["mean"])
    values = [image["mba"] for image in method["per_image"].values()]
    assert method["mean"]["mba"] == pytest.approx(np.mean(values))


def spoil(kind: str, predictions: Path, truths: Path) -> None:
    if kind == "missing":
        (predictions / "00001.png").unlink()
    elif kind == "extra":
        shutil.copy(predictions / "00001.png", predictions / "another.png")
    elif kind == "unreadable":
        (predictions / "00001.png").write_bytes(b"no picture")
    elif kind == "size":
        cv2.imwrite(str(predictions / "00001.png"), np.zeros((12, 16), np.uint8))
    elif kind == "levels":
        truth = cv2.imread(str(truths / "00001.png"), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(truths / "00001.png"), truth // 128)
    else:
        shutil.copy(predictions / "00001.png", predictions / "00001.bmp")


KINDS = ["missing", "extra", "unreadable", "levels", "size", "ambiguous"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_match_is_listed_and_fails(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truths = make_set(tmp_path, 3)
    spoil(kind, predictions, truths)
    options = ["--pred", predictions, "--gt", truths, "--json", tmp_path / "s.json"]
    assert run(monkeypatch, *options) == 1
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(kind)]
    assert len(listed) == 1
    assert ("another.png" if kind == "extra" else "00001") in listed[0]
    assert not (tmp_path / "s.json").exists()
    answer = "--resize" if kind == "size" else "--allow-missing"
    assert run(monkeypatch, *options, answer) == 0
    scores = json.loads((tmp_path / "s.json").read_text())["datasets"][tmp_path.name]["pred"]
    assert len(scores["per_image"]) == (2 if kind in ("missing", "unreadable", "levels") else 3)


def test_resizing_is_nearest_under_purnet(tmp_path: Path) -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[2:6, 2:6] = 255
    for name, array in {"gt": truth, "pred": truth[::2, ::2]}.items():
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), array)
    folders = {"m": tmp_path / "pred"}, {"d": tmp_path / "gt"}
    found = {
        protocol: evaluate(*folders, metrics.ScoreSettings(protocol, resize=True))
        for protocol in metrics.PROTOCOLS
    }
    assert found["purnet"].datasets["d"].methods["m"].mean["mae"] == 0
    assert found["standard"].datasets["d"].methods["m"].mean["mae"] > 0


def test_folders_that_cannot_be_scored_say_why(tmp_path: Path) -> None:
    predictions, truths = make_set(tmp_path, 2)
    (tmp_path / "empty").mkdir()
    settings = metrics.ScoreSettings()
    with pytest.raises(InputError, match="no images in it"):
        evaluate({"m": tmp_path / "empty"}, {"d": truths}, settings)
    with pytest.raises(InputError, match="no such folder"):
        evaluate({"m": tmp_path / "none"}, {"d": truths}, settings)
    with pytest.raises(InputError, match="no map has the name"):
        evaluate({"m": PREDICTIONS}, {"d": truths}, settings)
    for file in predictions.iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(InputError, match="not one map could be scored"):
        evaluate({"m": predictions}, {"d": truths}, settings)


def test_a_data_sets_folder_will_do_for_its_ground_truths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, truths = make_set(tmp_path / "set", 2)
    truths.rename(tmp_path / "set" / "masks")
    shutil.copytree(predictions, tmp_path / "set" / "images")
    options = ["--pred", predictions, "--gt", tmp_path / "set", "--json", tmp_path / "s.json"]
    assert run(monkeypatch, *options) == 0
    assert list(json.loads((tmp_path / "s.json").read_text())["datasets"]) == ["set"]


def test_pascal_s_keeps_its_name_and_photographs(tmp_path: Path) -> None:
    predictions, truths = make_set(tmp_path, 2)
    datasets = tmp_path / "PASCAL-S" / "datasets"
    masks = shutil.copytree(truths, datasets / "masks" / "pascal")
    shutil.copytree(predictions, datasets / "imgs" / "pascal")
    for given in (tmp_path / "PASCAL-S", masks):
        assert dataset_name(given) == "PASCAL-S"
        found = evaluate({"m": predictions}, {"P": given}, metrics.ScoreSettings()).datasets["P"]
        assert {path.parent.parent.name for path in found.images.values()} == {"imgs"}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry for each pair that is really scored."""
    calls: list[int] = []
    score_pair = metrics.score_pair

    def counting(*arguments: object) -> metrics.ImageScores:
        calls.append(1)
        return score_pair(*arguments)

    monkeypatch.setattr(metrics, "score_pair", counting)
    return calls


def test_nothing_is_scored_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, truths = make_set(tmp_path, 5)
    calls = counted(monkeypatch)
    first = evaluate({"m": predictions}, {"d": truths}, metrics.ScoreSettings(), workers=1)
    again = evaluate({"m": predictions}, {"d": truths}, metrics.ScoreSettings(), workers=1)
    assert len(calls) == 5
    assert again.as_json() == first.as_json()
    ours, theirs = (found.datasets["d"].methods["m"].curves for found in (first, again))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    shutil.copy(predictions / "00000.png", predictions / "00001.png")
    evaluate({"m": predictions}, {"d": truths}, metrics.ScoreSettings(), workers=1)
    assert len(calls) == 6
    evaluate({"m": predictions}, {"d": truths}, metrics.ScoreSettings(gt_threshold=99), workers=1)
    assert len(calls) == 11


def test_a_run_that_breaks_off_keeps_what_it_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, truths = make_set(tmp_path, 6)
    calls = counted(monkeypatch)
    counting = metrics.score_pair

    def breaking(*arguments: object) -> metrics.ImageScores:
        if len(calls) == 4:
            raise KeyboardInterrupt
        return counting(*arguments)

    monkeypatch.setattr(metrics, "score_pair", breaking)
    with pytest.raises(KeyboardInterrupt):
        evaluate({"m": predictions}, {"d": truths}, metrics.ScoreSettings(), workers=1)
    monkeypatch.setattr(metrics, "score_pair", counting)
    evaluate({"m": predictions}, {"d": truths}, metrics.ScoreSettings(), workers=1)
    assert len(calls) == 6


def test_a_killed_run_goes_on(tmp_path: Path, kept: Path) -> None:
    predictions, truths = make_set(tmp_path, 700)
    command = [sys.executable, "-m", "hqsod", "evaluate", "--pred", predictions, "--gt", truths]
    command += ["--workers", "1", "--json", tmp_path / "s.json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        for _ in range(600):
            if kept.is_file() and rows(kept):
                break
            time.sleep(0.05)
        job.send_signal(signal.SIGKILL)
    before = rows(kept)
    assert 0 < before < 700
    assert not (tmp_path / "s.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert rows(kept) == 700
    scores = json.loads((tmp_path / "s.json").read_text())["datasets"][tmp_path.name]["pred"]
    assert len(scores["per_image"]) == 700


def test_twice_from_scratch_gives_the_same_bytes(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, truths = make_set(tmp_path, 5, size=(61, 83))
    written = []
    for number, workers in enumerate((1, 2)):
        out = tmp_path / f"{number}.json"
        settings = ["--workers", workers, "--json", out]
        assert run(monkeypatch, "--pred", predictions, "--gt", truths, *settings) == 0
        written.append(out.read_bytes())
        shutil.rmtree(kept.parent)
    assert written[0] == written[1]


def rows(kept: Path) -> int:
    try:
        with sqlite3.connect(kept, timeout=30) as connection:
            return int(connection.execute("SELECT count(*) FROM scores").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # the table is not there yet


def test_a_damaged_file_of_kept_scores_costs_no_scores(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truths = make_set(tmp_path, 2)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"this is no database" * 100)
    assert run(monkeypatch, "--pred", predictions, "--gt", truths) == 0
    assert "2 of 2 scored" in capsys.readouterr().out


def test_a_damaged_row_is_scored_again(tmp_path: Path, kept: Path) -> None:
    predictions, truths = make_set(tmp_path, 4)
    folders = {"m": predictions}, {"d": truths}
    first = evaluate(*folders, metrics.ScoreSettings(), workers=1).as_json()
    damages = (b"", b"no zlib", zlib.compress(b"no json"), zlib.compress(b'{"scores": 1}'))
    with sqlite3.connect(kept) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM scores")]
        connection.executemany(
            "UPDATE scores SET record = ? WHERE key = ?", zip(damages, keys, strict=True)
        )
    connection.close()
    assert evaluate(*folders, metrics.ScoreSettings(), workers=1).as_json() == first


def test_a_cache_that_cannot_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truths = make_set(tmp_path, 130)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HQSOD_CACHE", str(tmp_path / "file" / "cache"))
    assert run(monkeypatch, "--pred", predictions, "--gt", truths, "--workers", 1) == 0
    caught = capsys.readouterr()
    assert "130 of 130 scored" in caught.out
    assert caught.err.count("scores are not kept") == 1


def test_ground_truths_of_0_and_1_are_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truths = make_set(tmp_path, 2)
    for file in truths.iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) // 128)
    options = ["--pred", predictions, "--gt", truths, "--json", tmp_path / "s.json"]
    assert run(monkeypatch, *options) == 1
    assert "rescale it to 0 and 255, or lower --gt-threshold" in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()
    assert run(monkeypatch, *options, "--gt-threshold", 0) == 0
    assert run(monkeypatch, *options, "--protocol", "purnet") == 0


def test_a_name_that_is_not_utf8_is_reported_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, truths = make_set(tmp_path, 2)
    name = os.fsdecode(b"caf\xe9")
    for folder in (predictions, truths):
        (folder / "00000.png").rename(folder / f"{name}.png")
    options = ["--pred", predictions, "--gt", truths, "--out", tmp_path / "report"]
    assert run(monkeypatch, *options, "--json", tmp_path / "s.json") == 0
    scores = json.loads((tmp_path / "s.json").read_text())["datasets"][tmp_path.name]["pred"]
    assert set(scores["per_image"]) == {name, "00001"}
    assert "caf\\udce9" in (tmp_path / "report" / "images.csv").read_text()
    assert "caf\\udce9" in (tmp_path / "report" / "report.html").read_text()


def test_no_name_of_a_file_or_method_speaks_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truths = make_set(tmp_path / "a\x1b[2Jset", 3)
    (predictions / "00001.png").rename(predictions / "a\x1b[2J.png")
    options = ["--pred", f"m\x1b[2J={predictions}", "--gt", truths, "--allow-missing"]
    assert run(monkeypatch, *options) == 0
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J.png: no ground truth for this map" in shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_no_message_can_end_the_job(tmp_path: Path, encoding: str) -> None:
    predictions, truths = make_set(tmp_path, 2)
    for folder in (predictions, truths):
        (folder / "00000.png").rename(folder / os.fsdecode(b"\xe6\x97\xa5caf\xe9.png"))
    (predictions / "00001.png").unlink()
    command = [sys.executable, "-m", "hqsod", "evaluate", "--pred", f"日本={predictions}"]
    command += ["--gt", str(truths), "--allow-missing", "--json", str(tmp_path / "s.json")]
    place = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=place, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s.json").exists()
    assert b": 1 of 2 scored" in done.stdout


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    predictions, truths = make_set(tmp_path, 400, size=(240, 320))
    command = [sys.executable, "-m", "hqsod", "evaluate", "--pred", predictions, "--gt", truths]
    with subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        workers = waited(lambda: len(found) >= 2 and found if (found := children(job.pid)) else [])
        assert workers
        job.send_signal(signal.SIGKILL)
    assert waited(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children(pid: int) -> list[int]:
    """Processes that score for `pid`."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in text.split()}
    return [child for child, line in lines.items() if b"spawn_main" in line]


def waited(condition: Callable[[], Any]) -> Any:
    """The condition's value once it is true, or after a minute."""
    for _ in range(600):
        if value := condition():
            return value
        time.sleep(0.1)
    return condition()


def test_the_same_input_gives_the_same_scores_wherever_it_lies() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        size = tuple(rng.integers(100, 400, 2))
        truth = np.zeros(size, np.uint8)
        cv2.circle(truth, (int(size[1]) // 2, int(size[0]) // 2), int(min(size)) // 3, 255, -1)
        soft = cv2.GaussianBlur(truth, (0, 0), 6) + rng.normal(0, 12, size)
        prediction = np.clip(soft, 0, 255).astype(np.uint8)
        scores = metrics.score(prediction, truth, also=list(metrics.MEASURES))
        for offset in rng.integers(1, 64, 2):
            moved = (shifted(array, offset) for array in (prediction, truth))
            assert metrics.score(*moved, also=list(metrics.MEASURES)) == scores


def shifted(array: np.ndarray, offset: int) -> np.ndarray:
    """The same array, its first byte `offset` bytes after a multiple of 64."""
    room = np.empty(array.size + 128, np.uint8)
    start = -room.ctypes.data % 64 + int(offset)
    moved = room[start : start + array.size].reshape(array.shape)
    moved[...] = array
    return moved


def test_links_to_nothing_and_other_files_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truths = make_set(tmp_path, 2)
    (truths / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (truths / "loop.png").symlink_to(truths / "loop.png")
    for name in ("list.txt", "more.txt", "README"):
        (predictions / name).write_text("no image")
    assert run(monkeypatch, "--pred", predictions, "--gt", truths) == 1
    caught = capsys.readouterr()
    listed = [line for line in caught.out.splitlines() if "a broken link" in line]
    assert ["gone.png" in line or "loop.png" in line for line in listed] == [True, True]
    assert f"{predictions}: 3 other files passed over: .txt, README" in caught.err
    assert run(monkeypatch, "--pred", predictions, "--gt", truths, "--allow-missing") == 0


def test_photographs_are_found_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, truths = make_set(tmp_path / "D", 2)
    shutil.copytree(predictions, tmp_path / "photographs")
    folders = {"m": predictions}, {"D": truths}
    settings = metrics.ScoreSettings()
    assert not evaluate(*folders, settings).datasets["D"].images
    told = evaluate(*folders, settings, images={"D": tmp_path / "photographs"}).datasets["D"]
    assert {path.parent.name for path in told.images.values()} == {"photographs"}
    (tmp_path / "D" / "gt").rename(tmp_path / "D" / "masks")
    shutil.copytree(predictions, tmp_path / "D" / "images")
    beside = evaluate({"m": predictions}, {"D": tmp_path / "D" / "masks"}, settings).datasets["D"]
    assert {path.parent.name for path in beside.images.values()} == {"images"}
    shutil.copytree(tmp_path / "D" / "masks", tmp_path / "D" / "other masks")
    others = evaluate({"m": predictions}, {"D": tmp_path / "D" / "other masks"}, settings)
    assert not others.datasets["D"].images, "photographs of the masks beside these"
    options = ["--pred", predictions, "--gt", tmp_path / "D", "--images"]
    assert run(monkeypatch, *options, f"E={tmp_path / 'photographs'}") == 1
    assert "photographs of E; expected photographs of D" in capsys.readouterr().err


def test_ground_truths_may_say_that_they_are_masks(tmp_path: Path) -> None:
    predictions, truths = make_set(tmp_path, 2)
    for file in list(truths.iterdir()):
        file.rename(file.with_name(f"{file.stem}_gt.png"))
    scored = evaluate({"m": predictions}, {"d": truths}, metrics.ScoreSettings())
    assert len(scored.datasets["d"].methods["m"].per_image) == 2


def test_workers_change_nothing(tmp_path: Path) -> None:
    predictions, truths = make_set(tmp_path, 80)
    one, two = (
        evaluate(
            {"m": predictions},
            {"d": truths},
            metrics.ScoreSettings(),
            workers=workers,
            kept=tmp_path / f"{workers}.sqlite",
        )
        for workers in (1, 2)
    )
    assert one.as_json() == two.as_json()


def test_evaluate_needs_no_torch(tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["hqsod", "evaluate", "--pred", {str(PREDICTIONS)!r}, "--gt", {str(TRUTHS)!r},
            "--out", {str(tmp_path / "report")!r}]
from hqsod.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html",
        "scores.csv",
        "images.csv",
        "table.tex",
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_maps(tmp_path: Path) -> None:
    """5,000 maps of 64 x 96 would take 61 MB if kept with their ground truths."""
    predictions, truths = make_set(tmp_path, 5000, size=(64, 96))
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted(predictions.iterdir())[:500]:
        os.link(file, few / file.name)
    code = f"""
import resource
from pathlib import Path
from hqsod.evaluate import evaluate
from hqsod.metrics import ScoreSettings
peaks = []
for folder in ({str(few)!r}, {str(predictions)!r}):
    folders = {{"m": Path(folder)}}, {{"d": Path({str(truths)!r})}}
    found = evaluate(*folders, ScoreSettings(), workers=1)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
assert len(found.datasets["d"].methods["m"].per_image) == 5000
print(*peaks)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    at_500, at_5000 = map(float, done.stdout.split())
    assert at_5000 - at_500 < 20, done.stdout


@pytest.mark.skipif(not DAVIS.is_dir(), reason="the DAVIS frames are not part of the project")
def test_a_simple_method_on_real_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob in the centre, and saliency from the spectral residual (Hou and Zhang, CVPR 2007)."""
    for path in sorted((DAVIS / "images").glob("*.jpg")):
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        for method, array in {"centre": centre(picture), "spectral": spectral(picture)}.items():
            (tmp_path / method).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / method / f"{path.stem}.png"), array)
    options = ["--pred", tmp_path / "centre", "--pred", tmp_path / "spectral", "--gt", DAVIS]
    assert run(monkeypatch, *options, "--json", tmp_path / "s.json") == 0
    found = json.loads((tmp_path / "s.json").read_text())["datasets"]["test-davis"]
    for method, (mae, s_measure, e_max) in {
        "centre": (0.3142, 0.5028, 0.7703),
        "spectral": (0.2577, 0.4939, 0.7332),
    }.items():
        assert len(found[method]["per_image"]) == 69
        mean = found[method]["mean"]
        assert mean["mae"] == pytest.approx(mae, abs=2e-3)
        assert mean["s_measure"] == pytest.approx(s_measure, abs=2e-3)
        assert mean["e_max"] == pytest.approx(e_max, abs=2e-3)


def centre(picture: np.ndarray) -> np.ndarray:
    rows, columns = (np.linspace(-2, 2, side) ** 2 for side in picture.shape)
    return (np.exp(-(rows[:, None] + columns) / 2) * 255).astype(np.uint8)


def spectral(picture: np.ndarray) -> np.ndarray:
    spectrum = np.fft.fft2(cv2.resize(picture, (64, 64)).astype(np.float32))
    amplitude = np.log(np.abs(spectrum) + 1e-9)
    residual = amplitude - cv2.blur(amplitude, (3, 3))
    map_ = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    map_ = cv2.resize(cv2.GaussianBlur(map_, (0, 0), 2.5), picture.shape[::-1])
    return (255 * (map_ - map_.min()) / np.ptp(map_)).astype(np.uint8)


def test_photographs_beside_ground_truths_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert ground_truth_folder(tmp_path) == tmp_path
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="move the masks"):
        ground_truth_folder(tmp_path)

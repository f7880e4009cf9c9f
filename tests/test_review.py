"""The review page's server: what it shows, what it takes, and whom it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hqsod import encoding, images
from hqsod.dataset.decisions import Decisions, OvertakenError, chosen
from hqsod.dataset.manifest import Manifest
from hqsod.errors import InputError, OutputError, SettingsError
from hqsod.review import pictures, words
from hqsod.review.apply import apply
from hqsod.review.linked import link
from tests.built import LAYERS, built, disc, many, photograph, record, write_pair
from tests.built import write_pair as write_built

pytest.importorskip("fastapi", reason="the review extra is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="needs an HTTP client to test with")

from hqsod.review.app import create_app  # noqa: E402 (after the packages it needs were asked for)
from hqsod.review.data_set import ReviewSet  # noqa: E402
from hqsod.web import connections  # noqa: E402
from hqsod.web.guard import Address, Guard  # noqa: E402
from tests.test_web import answers_as_described, serving  # noqa: E402

LOCAL = Address("127.0.0.1", 8765, None)
REMOTE = Address("0.0.0.0", 8765, "secret-token")


def client(folder: Path, address: Address = LOCAL, largest: int = 10**7):
    cache = pictures.Cache(folder.parent / "cache")
    app = Guard(create_app(ReviewSet(folder), "anna", cache), address, largest)
    return testclient.TestClient(app, base_url="http://127.0.0.1:8765")


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    return built(tmp_path / "set")


def decide(page, stem: str, choice: str | None, after: int = 0, **more: str):
    wish = {"choice": choice, "who": "anna", "after": after, **more}
    return page.post(f"/api/pairs/{stem}/decision", json=wish)


def stems(page, **query: object) -> list[str]:
    return page.get("/api/pairs", params=query).json()["stems"]


# ---- what is shown


def test_the_most_doubtful_stand_first_and_are_counted(data_set: Path) -> None:
    answer = client(data_set).get("/api/pairs").json()
    assert answer["stems"] == [f"pair_{number:04d}" for number in range(6)]
    assert answer["counts"] == {
        **{"all": 6, "flagged": 2, "left": 6, "undecided": 6, "later": 0, "decided": 0},
        "flagged_left": 2,
    }


def test_filters_agree_with_the_decisions(data_set: Path) -> None:
    page = client(data_set)
    decide(page, "pair_0000", "refined")
    decide(page, "pair_0001", "later")
    decide(page, "pair_0002", "reject")
    decide(page, "pair_0002", None, after=1)
    shown = {
        state: [
            stem[-1] for stem in page.get("/api/pairs", params={"state": state}).json()["stems"]
        ]
        for state in ("all", "flagged", "left", "undecided", "later", "decided")
    }
    assert shown == {
        "all": list("012345"),
        "flagged": list("01"),
        "left": list("12345"),
        "undecided": list("2345"),
        "later": ["1"],
        "decided": ["0"],
    }


def test_by_figure_and_by_stem(data_set: Path) -> None:
    page = client(data_set)
    by_figure = {"figure": "iou", "descending": True, "at_least": 0.4, "at_most": 0.85}
    stems = page.get("/api/pairs", params=by_figure).json()["stems"]
    assert stems == ["pair_0004", "pair_0003", "pair_0002", "pair_0001"]
    assert page.get("/api/pairs", params={"search": "R_0005"}).json()["stems"] == ["pair_0005"]
    assert len(page.get("/api/pairs", params={"figure": "other"}).json()["stems"]) == 6


def test_names_are_searched_in_any_case_of_any_script(data_set: Path) -> None:
    with Manifest.open(data_set) as manifest:
        manifest.append(replace(manifest.latest()["pair_0001"], stem="Ärmel"))
    assert stems(client(data_set), search="äRMEL") == ["Ärmel"]


def test_figures_of_any_pair_can_be_ordered_by(data_set: Path) -> None:
    with Manifest.open(data_set) as manifest:
        old = manifest.latest()["pair_0001"]
        manifest.append(replace(old, quality={"fog": 0.5, "other": 1.0}))
        manifest.append(replace(old, stem="odd", quality={"iou": float("nan")}))
    figures = client(data_set).get("/api/set").json()["figures"]
    assert {figure["name"] for figure in figures} == {"iou", "fog"}


def test_tiles_are_the_pictures_own_pixels(tmp_path: Path) -> None:
    folder = built(tmp_path / "set", 1, size=700)
    page = client(folder)
    pair = page.get("/api/pairs/pair_0000").json()
    assert list(pair["layers"]) == ["picture", "upscaled", "refined"]
    whole = np.zeros((700, 700, 3), np.uint8)
    for row, column in np.ndindex(2, 2):
        path = f"/tiles/pair_0000/picture/{pair['layers']['picture']}/0-{row}-{column}.png"
        part = images.read_image(_file(tmp_path, page.get(path).content))
        whole[row * 512 : row * 512 + part.shape[0], column * 512 : column * 512 + 512] = part
    np.testing.assert_array_equal(whole, images.read_image(folder / "images/pair_0000.png"))
    assert page.get(f"/tiles/pair_0000/picture/{pair['layers']['picture']}/1-0-0.png").is_success
    assert page.get(f"/tiles/pair_0000/picture/{pair['layers']['picture']}/2-0-0.png").is_error
    assert page.get("/tiles/pair_0000/picture/0000000000000000/0-0-0.png").is_error


def test_a_close_up_shows_where_refining_changed_most(tmp_path: Path) -> None:
    folder = built(tmp_path / "set", 2, size=400)
    after = images.read_map(folder / "masks" / "pair_0001.png")
    after[30:50, 300:320] = 255
    encoding.write_png(folder / "hq-masks" / "pair_0001.png", after)
    page = client(folder)
    (card,) = page.get("/api/cards?stem=pair_0001").json()
    answer = page.get(f"/close-ups/pair_0001/{card['thumbnail']}.png")
    shown = images.read_image(_file(tmp_path, answer.content))
    side, step = pictures.CLOSE, pictures.CLOSE + pictures.GAP
    assert shown.shape == (side, 2 * step + side, 3)
    assert not shown[:, step : step + side].any()
    assert np.count_nonzero(shown[:, 2 * step :].all(2)) == 400  # all that changed is in sight
    assert page.get("/close-ups/pair_0001/0000000000000000.png").status_code == 404


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "answer.png"
    path.write_bytes(content)
    return path


STAMPS = [f"{number:016x}" for number in range(30)]


def test_a_tile_is_made_once(tmp_path: Path) -> None:
    cache = pictures.Cache(tmp_path / "cache")
    calls = []

    def make() -> dict[str, bytes]:
        calls.append(1)
        return {"a-0": b"0", "a-1": b"1"}

    assert [cache.get("a", name, make) for name in ("a-0", "a-1", "a-0")] == [b"0", b"1", b"0"]
    assert len(calls) == 1


def test_a_cache_that_cannot_be_kept_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # where a folder would be made
    cache = pictures.Cache(tmp_path / "file" / "cache")
    assert cache.get("a", "a-0", lambda: {"a-0": b"0"}) == b"0"


def test_files_that_another_review_renames_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_look = Path.lstat

    def look(self: Path) -> os.stat_result:
        if self.name.startswith(f".{STAMPS[0]}"):
            self.unlink()
        return really_look(self)

    (tmp_path / f".{STAMPS[0]}.jpg.1-1").touch()
    monkeypatch.setattr(Path, "lstat", look)
    cache = pictures.Cache(tmp_path)
    cache.get("a", f"{STAMPS[1]}.jpg", lambda: {f"{STAMPS[1]}.jpg": b"0"})
    assert cache._size == 1


def test_the_cache_stays_within_its_limit(tmp_path: Path) -> None:
    cache = pictures.Cache(tmp_path / "cache", limit=1000)
    for number in range(30):
        name = f"{STAMPS[number]}.jpg"
        cache.get(name, name, lambda: {name: bytes(100)})  # noqa: B023 (called at once)
        if not number:  # what the cache did not make is neither counted nor removed
            (tmp_path / "cache" / "film.mp4").write_bytes(bytes(5000))
    made = list((tmp_path / "cache").glob("*.jpg"))
    assert 5 <= len(made) <= 10
    assert tmp_path / "cache" / f"{STAMPS[29]}.jpg" in made
    assert (tmp_path / "cache" / "film.mp4").is_file()


def test_a_data_sets_own_cache_is_neither_believed_nor_cleaned_up(data_set: Path) -> None:
    films = data_set.parent / "films"
    films.mkdir()
    (films / "film.mp4").write_bytes(bytes(100))
    (data_set / ".review-cache").symlink_to(films, target_is_directory=True)
    page = client(data_set)
    card = page.get("/api/cards", params={"stem": "pair_0000"}).json()[0]
    (films / f"{card['thumbnail']}.jpg").write_bytes(b"another picture")
    shown = page.get(f"/thumbnails/pair_0000/{card['thumbnail']}.jpg").content
    assert shown.startswith(b"\xff\xd8")
    assert len(list(films.iterdir())) == 2


@pytest.mark.parametrize("name", ["corrected-masks", "final-masks", ".lock"])
def test_links_in_the_place_of_its_own_folders_are_refused(data_set: Path, name: str) -> None:
    other = data_set.parent / "other"
    encoding.write_png(other / "pair_0000.png", disc(96, 0.1))
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    (data_set / name).symlink_to(other, target_is_directory=True)
    job = ReviewSet if name == "corrected-masks" else apply
    with pytest.raises(OutputError, match="a link to"):
        job(data_set)
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before


def test_a_missing_file_costs_only_its_pair(data_set: Path) -> None:
    (data_set / "images" / "pair_0001.png").unlink()
    page = client(data_set)
    cards = page.get("/api/cards", params={"stem": ["pair_0000", "pair_0001"]}).json()
    assert [card["thumbnail"] is None for card in cards] == [False, True]
    answer = page.get("/api/pairs/pair_0001")
    assert answer.status_code == 404
    assert "no such file" in answer.json()["error"]


def test_a_pair_rejected_meanwhile_costs_only_its_card(data_set: Path) -> None:
    with Manifest.open(data_set) as manifest:
        old = manifest.latest()["pair_0001"]
        manifest.append(replace(old, status="rejected", outputs={}, placement=None))
    page = client(data_set)
    stems = ["pair_0000", "pair_0001", "nothing", "pair_0002"]
    cards = page.get("/api/cards", params={"stem": stems}).json()
    assert [card["stem"] for card in cards] == ["pair_0000", "pair_0002"]
    assert page.get("/api/pairs/pair_0001").status_code == 404


def test_ten_thousand_records_are_listed_without_growing(tmp_path: Path) -> None:
    page = client(many(tmp_path / "set", 10_000))
    stems = page.get("/api/pairs").json()["stems"]
    assert len(stems) == 10_020
    assert len(page.get("/api/cards", params={"stem": stems[:60]}).json()) == 60
    assert page.get("/api/cards", params={"stem": stems[:500]}).status_code == 422


def test_a_pair_costs_as_much_beside_thousands_of_files(tmp_path: Path) -> None:
    folder = built(tmp_path / "set")
    review_set, stems = ReviewSet(folder), [f"pair_{number:04d}" for number in range(6)]

    def seconds() -> float:
        rounds = []
        for _ in range(5):
            start = time.process_time()
            review_set.cards(stems)
            rounds.append(time.process_time() - start)
        return min(rounds)

    before = seconds()
    for number, layer in np.ndindex(8_000, 3):
        (folder / LAYERS[layer] / f"other_{number}.png").touch()
    assert seconds() < 4 * before


# ---- what is decided


def test_a_decision_is_kept_with_who_when_and_why(data_set: Path) -> None:
    decide(client(data_set), "pair_0001", "reject", note="two objects")
    again = client(data_set).get("/api/pairs/pair_0001").json()  # another server
    (entry,) = again["history"]
    assert (entry["who"], entry["choice"], entry["note"]) == ("anna", "reject", "two objects")
    assert entry["made"].endswith("+00:00")
    assert again["counts_as"] is None


def test_of_two_windows_the_later_is_told(data_set: Path) -> None:
    page = client(data_set)
    assert decide(page, "pair_0000", "refined").is_success
    answer = decide(page, "pair_0000", "upscaled")
    assert answer.status_code == 409
    assert "anna decided on it meanwhile (refined)" in answer.json()["error"]
    assert page.get("/api/pairs/pair_0000").json()["choice"] == "refined"


def test_of_two_processes_the_later_is_told(data_set: Path) -> None:
    with Manifest.open(data_set) as manifest:
        pair = manifest.latest()["pair_0000"]
    with Decisions.open(data_set) as first, Decisions.open(data_set) as second:
        first.add(pair, "anna", "refined", "", 0)
        with pytest.raises(OvertakenError, match="anna decided on it meanwhile"):
            second.add(pair, "bert", "upscaled", "", 0, first=lambda: pytest.fail("came first"))
        second.add(pair, "bert", "upscaled", "", 1)
        assert [row.who for row in first.history("pair_0000")] == ["bert", "anna"]


@pytest.mark.parametrize("after", [1, 5, 2**63 - 2, 2**63, -1])
def test_the_first_decision_is_number_one(data_set: Path, after: int) -> None:
    page = client(data_set)
    assert decide(page, "pair_0000", "refined", after).status_code in (409, 422)
    assert decide(page, "pair_0000", "refined").json()["card"]["number"] == 1


@pytest.mark.parametrize("choice", ["picture", "corrected-1", "nonsense"])
def test_only_what_exists_can_be_chosen(data_set: Path, choice: str) -> None:
    answer = decide(client(data_set), "pair_0000", choice)
    assert answer.status_code == 404
    assert "expected upscaled, refined, reject, later" in answer.json()["error"]


def test_a_pair_built_to_other_masks_is_undecided_again(data_set: Path) -> None:
    page = client(data_set)
    decide(page, "pair_0001", "reject")
    with Manifest.open(data_set) as manifest:
        old = manifest.latest()["pair_0001"]
        manifest.append(old)  # built again to the same masks
        assert page.get("/api/pairs").json()["counts"]["decided"] == 1
        manifest.append(record("pair_0001", write_pair(data_set, "pair_0001", shift=0.2), 0.9))
    again = page.get("/api/pairs/pair_0001").json()
    assert (again["choice"], again["rebuilt"], again["counts_as"]) == (None, True, "refined")
    assert page.get("/api/pairs").json()["counts"]["decided"] == 0


def test_a_correction_is_a_version_of_its_own(data_set: Path) -> None:
    page = client(data_set)
    before = (data_set / "hq-masks/pair_0002.png").read_bytes()
    painted = disc(96, 0.1)
    answer = correct(page, "pair_0002", painted)
    assert answer.json()["card"]["choice"] == "corrected-1"
    kept = images.read_mask(data_set / "corrected-masks/pair_0002-1.png")
    np.testing.assert_array_equal(kept, painted)
    assert (data_set / "hq-masks/pair_0002.png").read_bytes() == before
    assert "corrected-1" in page.get("/api/pairs/pair_0002").json()["layers"]
    assert correct(page, "pair_0002", disc(96, 0.2)).status_code == 409
    kept = images.read_mask(data_set / "corrected-masks/pair_0002-1.png")
    np.testing.assert_array_equal(kept, painted)


def test_a_second_correction_leaves_the_first_one(data_set: Path) -> None:
    page = client(data_set)
    correct(page, "pair_0002", disc(96, 0.1))
    decide(page, "pair_0002", "refined", 1)
    assert correct(page, "pair_0002", disc(96, 0.2), 2).is_success
    pair = page.get("/api/pairs/pair_0002").json()
    assert list(pair["layers"])[-2:] == ["corrected-1", "corrected-3"]
    assert decide(page, "pair_0002", "corrected-1", 3).json()["card"]["counts_as"] == "corrected-1"
    kept = images.read_mask(data_set / "corrected-masks/pair_0002-1.png")
    np.testing.assert_array_equal(kept, disc(96, 0.1))
    for other in ("corrected-2", "corrected-4", "corrected-../x"):
        assert decide(page, "pair_0002", other, 4).status_code == 404


def test_a_mask_painted_before_a_rebuild_at_another_size_is_not_offered(data_set: Path) -> None:
    page = client(data_set)
    correct(page, "pair_0002", disc(96, 0.1))
    with Manifest.open(data_set) as manifest:
        outputs = write_pair(data_set, "pair_0002", size=128)
        manifest.append(record("pair_0002", outputs, 0.9, size=128))
    assert list(page.get("/api/pairs/pair_0002").json()["layers"])[1:] == ["upscaled", "refined"]
    assert decide(page, "pair_0002", "corrected-1", 1).status_code == 404
    assert correct(page, "pair_0002", disc(128, 0.1), 1).is_success


def test_a_kill_between_a_painted_masks_file_and_its_row_loses_nothing(
    data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = client(data_set)
    correct(page, "pair_0002", disc(96, 0.1))
    written = encoding.write_png

    def killed(path: Path, mask: np.ndarray) -> None:
        written(path, mask)
        raise EOFError

    monkeypatch.setattr(encoding, "write_png", killed)
    with pytest.raises(EOFError):
        correct(page, "pair_0002", disc(96, 0.2), 1)
    monkeypatch.undo()
    assert apply(data_set).counts["corrected"] == 1
    kept = images.read_mask(data_set / "final-masks/pair_0002.png")
    np.testing.assert_array_equal(kept, disc(96, 0.1))
    assert "corrected-2" not in page.get("/api/pairs/pair_0002").json()["layers"]


def correct(page, stem: str, mask: np.ndarray, after: int = 0):
    return page.post(
        f"/api/pairs/{stem}/correction",
        params={"who": "anna", "after": after},
        content=encoding.encode_png(mask),
        headers={"Content-Type": "image/png"},
    )


@pytest.mark.parametrize(
    ("mask", "reason"),
    [(disc(50, 0.2), "a corrected mask of"), (photograph(96), "a mask in colours")],
)
def test_a_correction_that_does_not_fit_is_refused(
    data_set: Path, mask: np.ndarray, reason: str
) -> None:
    answer = correct(client(data_set), "pair_0002", mask)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]
    assert not (data_set / "corrected-masks").exists()


@pytest.mark.parametrize(
    ("choice", "flagged", "counts"),
    [
        (None, False, "refined"),
        (None, True, "upscaled"),
        ("later", True, "upscaled"),
        ("refined", True, "refined"),
        ("upscaled", False, "upscaled"),
        ("reject", False, None),
        ("corrected-1", True, "corrected-1"),
    ],
)
def test_which_version_counts(
    data_set: Path, choice: str | None, flagged: bool, counts: str | None
) -> None:
    with Manifest.open(data_set) as manifest, Decisions.open(data_set) as decisions:
        pair = manifest.latest()["pair_0000" if flagged else "pair_0005"]
        decision = decisions.add(pair, "anna", choice, "", 0)
    assert chosen(pair, decision) == counts


# ---- odd requests

ODD = ["%00", "%ff", "%ed%a0%80", "..%2f", "'\"", "9" * 300, "2e308", "nan", "\u0663", "-1", ""]


@pytest.mark.parametrize("odd", ODD)
def test_no_odd_value_breaks_a_route(data_set: Path, odd: str) -> None:
    page = client(data_set)  # which raises whatever the server did not answer
    stamp = page.get("/api/cards?stem=pair_0000").json()[0]["thumbnail"]
    picture = page.get("/api/pairs/pair_0000").json()["layers"]["picture"]
    paths = [
        *(f"/api/pairs?{name}={odd}" for name in ("state", "search", "figure", "at_least", odd)),
        *(f"/api/cards?stem={odd}", f"/api/pairs/{odd}", f"/{odd}", f"/api/{odd}"),
        *(f"/thumbnails/{odd}/{stamp}.jpg", f"/thumbnails/pair_0000/{odd}.jpg"),
        *(f"/close-ups/{odd}/{stamp}.png", f"/close-ups/pair_0000/{odd}.png"),
        f"/tiles/pair_0000/{odd}/{picture}/0-0-0.png",
        f"/tiles/pair_0000/picture/{odd}/0-0-0.png",
        *(f"/tiles/pair_0000/picture/{picture}/{odd}-0-{odd}.png",),
    ]
    for path in paths:
        assert page.get(path).status_code in (200, 404, 405, 422), path
    for path in (f"/api/pairs/{odd}/decision", f"/api/pairs/{odd}/correction?after={odd}&who=a"):
        assert page.post(path, content=odd).status_code in (404, 405, 422), path


@pytest.mark.parametrize(
    "body",
    [
        '{"choice": "later", "who": "a", "after": NaN}',
        '{"choice": "later", "who": "a", "after": 1e400}',
        '{"choice": "later", "who": "a", "after": 9223372036854775808}',
        '{"choice": "later", "who": "\\ud800", "after": 0}',
        '{"choice": "\\ud800", "who": "a", "after": 0}',
        '{"choice": "later", "who": "a", "after": 0, "\\ud800": 1}',
        '{"choice": "later", "who": "a", "after": 0, "note": "\\udfff"}',
        "[" * 10_000,
        "null",
        "",
    ],
)
def test_no_odd_body_breaks_a_decision(data_set: Path, body: str) -> None:
    page = client(data_set)
    headers = {"Content-Type": "application/json"}
    answer = page.post("/api/pairs/pair_0000/decision", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert len(answer.json()["error"]) > 10
    assert page.get("/api/pairs/pair_0000").json()["history"] == []


def test_a_figure_that_is_no_number_is_shown_as_none(data_set: Path) -> None:
    """A manifest from elsewhere may hold what JSON cannot."""
    with Manifest.open(data_set) as manifest:
        old = manifest.latest()["pair_0001"]
        manifest.append(replace(old, quality={"iou": float("nan"), "fog": float("inf")}))
    page = client(data_set)
    assert page.get("/api/pairs/pair_0001").status_code == 200
    assert page.get("/api/pairs?figure=iou").status_code == 200


@pytest.mark.slow
def test_it_answers_as_it_describes(data_set: Path, tmp_path: Path) -> None:
    conformance = ("status_code", "content_type", "response_schema")
    names = ["not_a_server_error", *(f"{name}_conformance" for name in conformance)]
    app = create_app(ReviewSet(data_set), "anna", pictures.Cache(tmp_path / "cache"))
    with serving(app=app) as port:
        url, checks = f"http://127.0.0.1:{port}", f"--checks={','.join(names)}"
        said = answers_as_described(url, tmp_path, checks)
    assert re.search(r"[1-9]\d* generated", said), said


# ---- who is let in


def test_nothing_changes_by_get(data_set: Path) -> None:
    page = client(data_set)
    for path in ("decision", "correction"):
        assert page.get(f"/api/pairs/pair_0000/{path}").status_code in (404, 405)


@pytest.mark.parametrize(
    "path",
    [
        "/../app.py",
        "/%2e%2e/app.py",
        "/..%2f..%2fserver.py",
        "/tiles/..%2f..%2fetc/picture/0/0-0-0.png",
    ],
)
def test_only_files_of_the_data_set_are_reachable(data_set: Path, path: str) -> None:
    assert client(data_set).get(path).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.com", ""])
def test_another_name_for_this_machine_is_refused(data_set: Path, host: str) -> None:
    assert client(data_set).get("/api/set", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1:9999", "[::1]:8765"])
def test_its_own_names_are_let_in(data_set: Path, host: str) -> None:
    assert client(data_set).get("/api/set", headers={"Host": host}).is_success


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil"}],
)
def test_other_sites_cannot_ask_for_anything(data_set: Path, headers: dict[str, str]) -> None:
    page = client(data_set)
    wish = {"choice": "reject", "who": "evil", "after": 0}
    path = "/api/pairs/pair_0000/decision"
    assert page.post(path, json=wish, headers=headers).status_code == 403
    assert page.get("/api/set", headers=headers).status_code == 403
    own = {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
    assert page.post(path, json=wish, headers=own).is_success


def test_elsewhere_a_token_is_asked_for(data_set: Path) -> None:
    page = client(data_set, REMOTE)
    assert page.get("/api/set").status_code == 401
    assert page.get("/?token=wrong").status_code == 401
    assert page.post("/api/pairs/pair_0000/decision?token=secret-token").status_code == 401
    first = page.get("/?token=secret-token", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=strict" in first.headers["set-cookie"]
    page.get("/?token=secret-token")
    assert page.get("/api/set").is_success


def test_a_token_comes_with_every_address_but_loopback() -> None:
    for host, asked in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)):
        listening, address = connections.listen(host, 0)
        listening.close()
        assert (address.token is not None) == asked
        assert ("token=" in address.url) == asked


def test_a_port_in_use_is_said() -> None:
    listening, address = connections.listen("127.0.0.1", 0)
    with pytest.raises(SettingsError, match="choose another with --port"):
        connections.listen("127.0.0.1", address.port)
    listening.close()


def test_bodies_are_bounded(data_set: Path) -> None:
    page = client(data_set, largest=1000)
    assert decide(page, "pair_0000", "refined", note="x" * 1500).status_code == 413

    def parts():
        for _ in range(5):
            yield bytes(900)

    path = "/api/pairs/pair_0000/correction?who=anna&after=0"
    assert page.post(path, content=parts(), headers={"Content-Type": "image/png"}).is_error
    assert not (data_set / "corrected-masks").exists()


def test_every_answer_says_what_the_page_may_load(data_set: Path) -> None:
    page = client(data_set)
    for path in ("/", "/main.js", "/api/set", "/nothing-here"):
        policy = page.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    for name in ("index.html", "page.css", "main.js"):
        assert "http" not in page.get(f"/{name}").text.replace("http://www.w3.org/", "")


def test_neither_the_command_nor_the_server_imports_torch() -> None:
    code = (
        "import sys, hqsod.cli, hqsod.web.connections, hqsod.review.app, hqsod.review.linked;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- any folders of pictures and masks


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., Path]:
    for number in range(3):
        encoding.write_png(tmp_path / "photos" / f"p{number}.png", photograph(80))
        encoding.write_png(tmp_path / "gt" / f"p{number}.png", disc(80, 0.3))
        encoding.write_png(tmp_path / "sam" / f"p{number}.png", disc(80, 0.25))
    encoding.write_png(tmp_path / "gt" / "p2.png", disc(50, 0.3))  # of another size

    def linked(**candidates: Path) -> Path:
        link(tmp_path / "review", tmp_path / "photos", tmp_path / "gt", candidates)
        return tmp_path / "review"

    return linked


def test_folders_become_a_data_set(folders: Callable[..., Path], tmp_path: Path) -> None:
    page = client(folders(sam=tmp_path / "sam"))
    answer = page.get("/api/pairs").json()
    assert sorted(answer["stems"]) == ["p0", "p1"]
    pair = page.get("/api/pairs/p0").json()
    assert list(pair["layers"]) == ["picture", "masks", "sam"]
    assert pair["score"] is not None
    assert pair["counts_as"] == "masks"  # nobody chose the candidate
    assert [line["name"] for line in pair["quality"] if line["name"].endswith("iou")] == [
        "candidate_iou"
    ]
    assert decide(page, "p0", "sam").json()["card"]["counts_as"] == "sam"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gt", "photos", "review", "sam"]


def test_poor_candidates_leave_the_masks_trust_as_it_is(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    alone = client(folders()).get("/api/pairs/p0").json()
    encoding.write_png(tmp_path / "sam" / "p0.png", disc(80, 0.05, 0.1))
    with_poor = client(folders(sam=tmp_path / "sam")).get("/api/pairs/p0").json()
    assert with_poor["layers"].keys() - alone["layers"].keys() == {"sam"}
    assert with_poor["score"] == alone["score"]


def test_candidates_may_say_that_they_are_masks(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    for file in list((tmp_path / "sam").iterdir()):
        file.rename(file.with_name(f"{file.stem}_mask.png"))
    page = client(folders(sam=tmp_path / "sam"))
    assert "sam" in page.get("/api/pairs/p0").json()["layers"]


def test_candidates_of_other_photographs_are_refused(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    encoding.write_png(tmp_path / "other" / "q.png", disc(80, 0.25))
    with pytest.raises(InputError, match="no mask of the same name"):
        folders(sam=tmp_path / "other")
    folders(sam=tmp_path / "sam")  # the first try left no link


def test_candidates_are_not_lost_unsaid(folders: Callable[..., Path], tmp_path: Path) -> None:
    page = client(folders(sam=tmp_path / "sam"))
    decide(page, "p0", "sam")
    with pytest.raises(InputError, match=r"has candidates sam.*--candidates sam=.*/sam"):
        folders()
    folders(sam=tmp_path / "sam")
    assert page.get("/api/pairs/p0").json()["choice"] == "sam"
    (tmp_path / "review" / "sam").unlink()
    folders()
    assert "sam" not in page.get("/api/pairs/p0").json()["layers"]


def test_a_pair_that_is_gone_counts_no_more_until_it_is_back(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    photograph, page = tmp_path / "photos" / "p0.png", client(folders())
    decide(page, "p0", "masks")
    photograph.rename(tmp_path / "p0.png")
    failed = link(tmp_path / "review", tmp_path / "photos", tmp_path / "gt", {})
    assert "p0: its photograph or its mask is gone" in failed
    assert not apply(tmp_path / "review").failed
    assert stems(page) == ["p1"]
    (tmp_path / "p0.png").rename(photograph)
    folders()
    assert page.get("/api/pairs/p0").json()["choice"] == "masks"


def test_a_file_that_leads_elsewhere_or_cannot_be_read_costs_only_its_pair(
    folders: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding.write_png(tmp_path / "gt" / "p2.png", disc(80, 0.3))
    (tmp_path / "gt" / "p0.png").rename(tmp_path / "elsewhere.png")
    (tmp_path / "gt" / "p0.png").symlink_to(tmp_path / "elsewhere.png")
    really_read = Path.read_bytes

    def read(self: Path) -> bytes:
        if self == tmp_path / "gt" / "p1.png":
            raise PermissionError(13, "Permission denied")
        return really_read(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    failed = link(tmp_path / "review", tmp_path / "photos", tmp_path / "gt", {})
    assert [line.partition(";")[0].rpartition(": ")[2] for line in failed] == [
        "a link that leads out of its folder",
        "Permission denied",
    ]
    assert stems(client(tmp_path / "review")) == ["p2"]


def test_decisions_may_go_to_a_folder_whose_parent_is_not_there_yet(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    folders()
    link(tmp_path / "new/review", tmp_path / "photos", tmp_path / "gt", {})
    assert (tmp_path / "new/review/images").is_symlink()


def test_figures_say_no_more_than_they_know() -> None:
    with_figures = replace(record("a", {}, 0.9), quality={"fog": 1.094, "iou": 0.5})
    said = [(line["words"], line["value"]) for line in words.describe(with_figures)]
    assert said == [
        ("Many pixels are neither object nor background", "over 100% of the object undecided"),
        ("Refining changed a lot", "50.0% overlap"),
    ]


def test_linking_again_judges_only_what_changed(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    folder = folders()
    with Manifest.open(folder) as manifest:
        assert len(manifest.latest()) == 3
        before = manifest._connection.execute("SELECT count(*) FROM records").fetchone()[0]
    encoding.write_png(tmp_path / "gt" / "p1.png", disc(80, 0.2))
    folders()
    with Manifest.open(folder) as manifest:
        after = manifest._connection.execute("SELECT count(*) FROM records").fetchone()[0]
    assert after - before == 2  # p1, and p2 that still does not fit


def test_links_never_take_the_place_of_something_else(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    folders()
    with pytest.raises(OutputError, match="already leads to"):
        link(tmp_path / "review", tmp_path / "sam", tmp_path / "gt", {})
    with pytest.raises(InputError, match="a new name"):
        link(tmp_path / "review", tmp_path / "photos", tmp_path / "gt", {"../x": tmp_path / "sam"})
    for name in ("reject", "final-masks", "corrected-masks", "exports", "picture"):
        with pytest.raises(InputError, match="a new name"):
            link(
                tmp_path / "review", tmp_path / "photos", tmp_path / "gt", {name: tmp_path / "sam"}
            )


def test_masks_that_were_built_again_are_not_decided_on_unseen(data_set: Path) -> None:
    page = client(data_set)
    card = page.get("/api/pairs/pair_0000").json()
    with Manifest.open(data_set) as manifest:
        again = write_built(data_set, "pair_0000", shift=0.1)
        manifest.append(replace(manifest.latest()["pair_0000"], outputs=again))
    seen = {"after": card["number"], "seen": card["seen"]}
    answer = decide(page, "pair_0000", "refined", **seen)
    assert (answer.status_code, "built again meanwhile" in answer.json()["error"]) == (409, True)
    now = page.get("/api/pairs/pair_0000").json()
    assert decide(page, "pair_0000", "refined", now["number"], seen=now["seen"]).status_code == 200


def test_a_name_that_is_not_utf8_costs_only_its_pair(folders, tmp_path: Path) -> None:
    for folder in ("photos", "gt"):
        one = next((tmp_path / folder).iterdir())
        (tmp_path / folder / os.fsdecode(b"caf\xe9.png")).write_bytes(one.read_bytes())
    failed = link(tmp_path / "review", tmp_path / "photos", tmp_path / "gt", {})
    assert sum("not UTF-8" in line for line in failed) == 1
    assert stems(client(tmp_path / "review")) == ["p0", "p1"]

"""`hqsod apply`: the decisions become final masks, whatever came before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hqsod import encoding, images
from hqsod.dataset import card
from hqsod.dataset.decisions import Decisions
from hqsod.dataset.folders import CORRECTED_FOLDER
from hqsod.dataset.lock import sole_run
from hqsod.dataset.manifest import Manifest
from hqsod.errors import InputError, OutputError
from hqsod.review.apply import apply
from hqsod.review.linked import link
from tests.built import built, disc, photograph


def decide(folder: Path, **choices: str | None) -> None:
    with Manifest.open(folder) as manifest, Decisions.open(folder) as decisions:
        for stem, choice in choices.items():
            newest = decisions.latest().get(stem)
            after = newest.number if newest else 0
            decisions.add(manifest.latest()[stem], "anna", choice, "", after)


def final(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "final-masks").iterdir())}


def expected(folder: Path, **layers: str) -> dict[str, bytes]:
    names = {stem: f"{stem}-1" if layers[stem] == CORRECTED_FOLDER else stem for stem in layers}
    return {
        f"{stem}.png": (folder / layers[stem] / f"{names[stem]}.png").read_bytes()
        for stem in layers
    }


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """Six pairs, the first two flagged; one decision of every kind."""
    folder = built(tmp_path / "set", 6)
    encoding.write_png(folder / CORRECTED_FOLDER / "pair_0004-1.png", disc(96, 0.1))
    decide(folder, pair_0001="refined", pair_0002="reject", pair_0003="upscaled")
    decide(folder, pair_0004="corrected-1", pair_0005="later")
    return folder


DECIDED = {
    "pair_0000": "masks",  # undecided and flagged
    "pair_0001": "hq-masks",
    "pair_0003": "masks",
    "pair_0004": "corrected-masks",
    "pair_0005": "hq-masks",  # put off and not flagged
}


def test_each_decision_counts(data_set: Path) -> None:
    done = apply(data_set)
    assert final(data_set) == expected(data_set, **DECIDED)
    assert done.counts == {"upscaled": 2, "refined": 2, "corrected": 1}
    assert (done.written, done.removed, done.left_out) == (5, 0, ("pair_0002",))


def test_again_writes_nothing_and_a_changed_mind_only_what_differs(data_set: Path) -> None:
    apply(data_set)
    assert (apply(data_set).written, apply(data_set).removed) == (0, 0)
    decide(data_set, pair_0001="reject", pair_0002=None)
    done = apply(data_set)
    assert (done.written, done.removed) == (1, 1)
    again = {name: layer for name, layer in DECIDED.items() if name != "pair_0001"}
    assert final(data_set) == expected(data_set, **again, pair_0002="hq-masks")


@pytest.mark.parametrize("moment", range(5))
def test_killed_and_run_again_it_ends_the_same(
    data_set: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child is killed outright while it replaces the moment-th file."""
    really_replace = Path.replace
    child = os.fork()
    if child == 0:
        replaced = []

        def replace(self: Path, target: Path) -> Path:
            replaced.append(target)
            if len(replaced) > moment:
                os.kill(os.getpid(), 9)
            return really_replace(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        apply(data_set)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9
    apply(data_set)
    assert final(data_set) == expected(data_set, **DECIDED)


def test_a_painted_mask_that_is_a_link_is_not_taken(data_set: Path, tmp_path: Path) -> None:
    (painted,) = (data_set / "corrected-masks").iterdir()
    painted.rename(tmp_path / "private.png")
    painted.symlink_to(tmp_path / "private.png")
    done = apply(data_set)
    assert [line.partition(": ")[2] for line in done.failed] == [
        "a link; expected a mask painted in hqsod review"
    ]
    assert len(final(data_set)) == 4


def test_links_carry_no_private_masks_away(data_set: Path, tmp_path: Path) -> None:
    """A stranger's data set names files of the user's, but cannot know their hashes."""
    (data_set / "hq-masks").rename(tmp_path / "private")
    (data_set / "hq-masks").symlink_to(tmp_path / "private")
    encoding.write_png(tmp_path / "private" / "pair_0001.png", disc(96, 0.05))
    done = apply(data_set)
    assert [line.partition(": ")[2].partition(";")[0] for line in done.failed] == [
        "not the file that the manifest tells of"
    ]
    assert "pair_0001.png" not in final(data_set)
    (data_set / "corrected-masks").rename(tmp_path / "painted")
    (data_set / "corrected-masks").symlink_to(tmp_path / "painted")
    with pytest.raises(OutputError, match="a link to"):
        apply(data_set)


def test_a_mask_painted_at_another_size_is_not_taken(data_set: Path) -> None:
    encoding.write_png(data_set / CORRECTED_FOLDER / "pair_0004-1.png", disc(50, 0.1))
    (failed,) = apply(data_set).failed
    assert "a corrected mask of (50, 50); expected the image's size (96, 96)" in failed
    assert "pair_0004.png" not in final(data_set)


def test_a_missing_mask_is_told_and_costs_only_its_pair(data_set: Path) -> None:
    (data_set / "hq-masks" / "pair_0001.png").unlink()
    done = apply(data_set)
    assert len(done.failed) == 1
    assert "pair_0001.png" in done.failed[0]
    assert len(final(data_set)) == 4


def test_the_card_says_what_was_decided(data_set: Path) -> None:
    with Manifest.open(data_set) as manifest:
        card.write(data_set, manifest)
    apply(data_set)
    text = (data_set / "README.md").read_text()
    assert "`final-masks/`" in text
    assert "4 of 6 pairs decided by a person: 1 corrected, 1 refined, 1 reject, 1 upscaled" in text


def test_linked_folders_of_any_format(tmp_path: Path) -> None:
    encoding.write_png(tmp_path / "photos" / "a.png", photograph(80))
    encoding.write_png(tmp_path / "gt" / "a.png", disc(80, 0.3))
    bitmap = tmp_path / "sam" / "a.bmp"
    bitmap.parent.mkdir()
    Image.fromarray(disc(80, 0.2)).save(bitmap)
    folder = tmp_path / "review"
    link(folder, tmp_path / "photos", tmp_path / "gt", {"sam": tmp_path / "sam"})
    decide(folder, a="sam")
    assert apply(folder).counts == {"sam": 1}
    np.testing.assert_array_equal(images.read_mask(folder / "final-masks/a.png"), disc(80, 0.2))
    assert not (folder / "README.md").exists()
    (folder / "README.md").write_text("of a project of mine")
    apply(folder)
    assert (folder / "README.md").read_text() == "of a project of mine"


def test_what_is_no_mask_is_not_copied(data_set: Path) -> None:
    (data_set / "hq-masks" / "pair_0001.png").write_bytes(b"-----BEGIN PRIVATE KEY-----")
    done = apply(data_set)
    assert len(done.failed) == 1
    assert "pair_0001.png: not an image" in done.failed[0]
    assert "pair_0001.png" not in final(data_set)


def test_a_version_that_is_not_there_costs_only_its_pair(data_set: Path) -> None:
    decide(data_set, pair_0003="corrected-../../secret", pair_0004="other")
    done = apply(data_set)
    assert [line.partition(";")[0] for line in done.failed] == [
        "pair_0003: no version is called corrected-../../secret",
        "pair_0004: no version is called other",
    ]
    assert len(final(data_set)) == 3


def test_files_of_others_in_the_folder_stay(data_set: Path) -> None:
    encoding.write_png(data_set / "final-masks" / "mine.png", disc(96, 0.1))
    apply(data_set)
    decide(data_set, pair_0001="reject")
    assert apply(data_set).removed == 1
    assert (data_set / "final-masks" / "mine.png").is_file()


def test_it_waits_for_nobody_and_works_beside_nobody(data_set: Path) -> None:
    with sole_run(data_set), pytest.raises(OutputError, match="another run is at work there"):
        apply(data_set)
    assert apply(data_set).written == 5
    with pytest.raises(InputError, match=r"no manifest\.sqlite"):
        apply(data_set / "nowhere")
    assert not (data_set / "nowhere").exists()

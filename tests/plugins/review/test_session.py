"""Changes of a review: what each does, undo, conflicts, and what is refused."""

import random
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest
from stages.reviews import RATE, collection, session

from neurovocal.engine.contracts.errors import CommandError, ConfigError, StageError
from neurovocal.plugins.review.session import Edit, Query, ReviewSession
from neurovocal.plugins.review.store import ReviewStore, review_path

SEGMENTS = [(0.5, 0.7, "a"), (1.0, 1.2, "b"), (2.0, 2.3, ""), (3.0, 3.1, "a")]


@pytest.fixture
def found(tmp_path: Path) -> ReviewSession:
    return session(tmp_path / "x.review.sqlite", collection(tmp_path, SEGMENTS))


def do(target: ReviewSession, action: str, segment: str = "", **values: object):
    author = values.pop("author", "Ada")
    return target.edit(Edit(action, author, segment, **values))


def state(target: ReviewSession) -> list[tuple[float, float, str, bool]]:
    found, _ = target.select(Query())
    return [(s.onset / RATE, s.offset / RATE, s.unit, s.reviewed) for s in found]


def test_labels_confirms_and_counts(found):
    do(found, "label", "s0", unit="c")
    do(found, "confirm", "s1")
    do(found, "confirm", "s2")  # a vocalization without a unit
    assert state(found) == [
        (0.5, 0.7, "c", True),
        (1.0, 1.2, "b", True),
        (2.0, 2.3, "unknown", True),
        (3.0, 3.1, "a", False),
    ]
    assert found.progress() == (3, 4)
    assert found.units() == [("a", 1), ("b", 1), ("c", 1), ("unknown", 1)]


def test_moves_splits_merges_deletes_and_adds(found):
    do(found, "move", "s0", onset=round(0.4 * RATE), offset=round(0.7 * RATE))
    do(found, "split", "s1", at=round(1.1 * RATE))
    do(found, "merge", "s2")
    do(found, "add", recording="song.wav", onset=0, offset=160, unit="d")
    do(found, "delete", "s0")
    assert state(found) == [
        (0.0, 0.01, "d", True),
        (1.0, 1.1, "b", False),
        (1.1, 1.2, "b", False),
        (2.0, 3.1, "", False),
    ]
    assert found.progress() == (2, 5)  # the deleted one is decided


def test_undo_and_redo_survive_a_restart(tmp_path):
    path = tmp_path / "x.review.sqlite"
    first = session(path, collection(tmp_path, SEGMENTS))
    do(first, "split", "s0", at=round(0.6 * RATE))
    do(first, "label", "s1", unit="z")
    again = session(path, collection(tmp_path, SEGMENTS))
    before = state(again)
    do(again, "undo")
    do(again, "undo")
    assert state(again)[0] == (0.5, 0.7, "a", False)
    assert state(again)[1] == (1.0, 1.2, "b", False)
    do(again, "redo")
    do(again, "redo")
    assert state(again) == before
    with pytest.raises(CommandError, match="nothing to redo"):
        do(again, "redo")


def test_nothing_is_overwritten(tmp_path, found):
    do(found, "label", "s0", unit="c")
    do(found, "undo")
    path = tmp_path / "x.review.sqlite"
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT action, author FROM events").fetchall()
    assert rows == [("label", "Ada"), ("undo", "Ada")]
    for statement in ("UPDATE events SET author = 'x'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="only added"):
            connection.execute(statement)
    connection.close()


def test_the_newest_of_two_reviewers_wins_and_both_are_told(tmp_path):
    path = tmp_path / "x.review.sqlite"
    ada = session(path, collection(tmp_path, SEGMENTS))
    bob = session(path, collection(tmp_path, SEGMENTS))
    do(ada, "label", "s0", unit="c", seen=0)
    answer = do(bob, "label", "s0", unit="d", author="Bob", seen=0)
    assert "Ada had changed this segment to 'c'" in answer.told
    assert state(ada) == state(bob)
    assert state(ada)[0][2] == "d"
    assert [event.author for event in ada.events()] == ["Ada", "Bob"]
    with pytest.raises(CommandError, match="Bob has changed this segment since"):
        do(ada, "undo")
    do(bob, "undo", author="Bob")
    assert state(ada)[0][2] == "c"
    do(ada, "undo")
    assert state(bob)[0] == (0.5, 0.7, "a", False)


@pytest.mark.parametrize(
    ("action", "values", "sentence"),
    [
        ("move", {"onset": 100, "offset": 100}, "must end after its onset"),
        ("move", {"onset": -5, "offset": 100}, "before its recording"),
        ("move", {"onset": 100, "offset": 10**9}, "ends at 4.000 s"),
        ("move", {"onset": 8000, "offset": 17000}, "overlap 'b' from 1.000"),
        ("split", {"at": 8000}, "not within the segment"),
        ("label", {"unit": "  "}, "needs a name"),
        ("label", {"unit": "sil"}, "means silence"),
        ("label", {"unit": "a\x1b[31m"}, "cannot be printed"),
        ("label", {"unit": "x" * 251}, "too long"),
    ],
)
def test_impossible_changes_are_refused(found, action, values, sentence):
    before = state(found)
    with pytest.raises((CommandError, ConfigError), match=sentence):
        do(found, action, "s0", **values)
    assert state(found) == before
    assert found.events() == []


def test_the_last_segment_has_none_to_merge_with(found):
    with pytest.raises(CommandError, match="no segment after"):
        do(found, "merge", "s3")


def test_a_segment_that_somebody_deleted_comes_back_with_a_label(found):
    do(found, "delete", "s0", author="Bob")
    with pytest.raises(CommandError, match="Bob has deleted"):
        do(found, "confirm", "s0")
    do(found, "label", "s0", unit="e")
    assert state(found)[0] == (0.5, 0.7, "e", True)


def test_a_dash_is_a_vocalization_without_a_unit(found):
    do(found, "label", "s0", unit="-")
    assert state(found)[0][2] == "unknown"


def test_files_of_other_kinds_and_versions_are_refused(tmp_path):
    text = tmp_path / "a.review.sqlite"
    text.write_text("not a database, but long enough to look like one" * 30)
    with pytest.raises(ConfigError, match="is no review, or is damaged"):
        ReviewStore(text)
    other = tmp_path / "b.review.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    with pytest.raises(ConfigError, match="is no review: name another file"):
        ReviewStore(other)
    newer = tmp_path / "c.review.sqlite"
    do(session(newer, collection(tmp_path, SEGMENTS)), "delete", "s0")
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(ConfigError, match="has version 9, this program knows 1"):
        ReviewStore(newer)


def test_a_full_disk_changes_nothing(found):
    do(found, "label", "s0", unit="c")
    connection = found._store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    refused = None
    for number in range(200):
        before = state(found)
        try:
            do(found, "label", "s1", unit=f"unit {number} " + "x" * 200)
        except StageError as error:
            refused = str(error)
            break
    assert refused is not None, "the disk is never full"
    assert refused.startswith("nothing was changed: ")
    assert state(found) == before
    connection.execute("PRAGMA max_page_count = 100000")
    do(found, "label", "s1", unit="again")
    assert state(found)[1][2] == "again"


def test_reviews_lie_beside_what_is_reviewed(tmp_path):
    (tmp_path / "songs").mkdir()
    (tmp_path / "run.sqlite").touch()
    assert review_path(tmp_path / "songs").name == "songs.review.sqlite"
    assert review_path(tmp_path / "run.sqlite").name == "run.review.sqlite"


@pytest.mark.parametrize("seed", range(3))
def test_any_changes_are_the_same_when_they_are_read_again(tmp_path, seed):
    """What is kept up to date change by change equals what all events give."""
    rng = random.Random(seed)
    segments = [(n * 0.1, n * 0.1 + 0.06, "abc"[n % 3]) for n in range(30)]
    path = tmp_path / "x.review.sqlite"
    found = session(path, collection(tmp_path, segments))
    actions = ["label", "confirm", "move", "split", "merge", "delete", "add", "undo"]
    done = 0
    for _ in range(150):
        each = rng.choice(found.segments())
        onset = rng.randrange(0, 3 * RATE)
        values = {
            "label": {"unit": rng.choice("abcd")},
            "move": {"onset": each.onset + rng.randrange(-300, 300)},
            "split": {"at": (each.onset + each.offset) // 2},
            "add": {"recording": "song.wav", "onset": onset},
        }
        action = rng.choice(actions)
        change = dict(values.get(action, {}))
        if action in ("move", "add"):
            change["offset"] = change["onset"] + rng.randrange(0, 1500)
        segment = "" if action in ("add", "undo") else each.id
        try:
            do(found, action, segment, author=rng.choice(["Ada", "Bob"]), **change)
            done += 1
        except CommandError:
            continue
    assert done > 20
    again = session(path, collection(tmp_path, segments))
    assert again.progress() == found.progress()
    assert again.units() == found.units()
    assert again.window("song.wav", 0, RATE) == found.window("song.wav", 0, RATE)
    alive = sorted(s.onset for s in found.segments() if s.alive)
    assert [s.onset for s in found.window("song.wav", 0, 10**9)] == alive
    kept = [s for s in found.segments() if s.alive]
    ends = sorted((s.onset, s.offset) for s in kept)
    assert all(b[0] >= a[1] for a, b in pairwise(ends))

"""Export of a recording that was read twice because a kill interrupted a run."""

import csv
import io
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from network.publishers import Engine
from processes.cli_process import neurovocal, running

from neurovocal.engine.contracts.types import Event, Health, Label, Message
from neurovocal.engine.journal import runs
from neurovocal.engine.journal.reader import Selection, read_messages
from neurovocal.engine.journal.repeats import repeat_sentence, replacement_sentence

RATE = 8000
CONFIG = """\
version: 1
source:
  plugin: folder
  options: {{path: card, follow: false, settle_s: 0, confirm_s: 0}}
detector: {{plugin: energy, options: {{low_hz: 500, high_hz: 3500}}}}
sinks:
  - {{plugin: journal, options: {{path: {journal}, commit_ms: 50}}}}
"""


def record(path: Path, seconds: int, seed: int) -> None:
    """Write a recording with three bursts of noise per second."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-0.5, 0.5, (3 * seconds, RATE // 3))
    values[:, RATE // 10 :] *= 0.001
    soundfile.write(path, values.ravel(), RATE, subtype="PCM_16")


def rows(journal: Path, *options: str) -> list[dict[str, str]]:
    done = neurovocal("export", journal, "--kinds", "offset", *options)
    assert done.code == 0, done.err
    return list(csv.DictReader(io.StringIO(done.out)))


def exported(journal: Path, *options: str) -> list[tuple[str, str, str]]:
    found = rows(journal, *options)
    return [(row["stream"], row["onset_s"], row["sample_s"]) for row in found]


def has_begun(journal: Path, run: int) -> bool:
    """Return True if the run of this number has events of ``b.wav``."""
    query = (
        "SELECT count(DISTINCT run) FROM messages "
        "WHERE kind = 'offset' AND stream = 'b.wav'"
    )
    if not journal.exists():
        return False
    with closing(sqlite3.connect(journal)) as connection:
        try:
            (number,) = connection.execute(query).fetchone()
        except sqlite3.OperationalError:  # its tables are still to come
            return False
    return int(number) >= run


def kill_in_the_midst(tmp_path: Path, journal: Path, run: int) -> None:
    with running("run", tmp_path / "killed.yaml", cwd=tmp_path) as process:
        while not has_begun(journal, run):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.kill()
        process.wait()


def test_a_recording_that_was_read_again_after_a_kill_is_exported_once(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "killed.sqlite"
    for name in ("killed", "whole"):
        text = CONFIG.format(journal=f"{name}.sqlite")
        (tmp_path / f"{name}.yaml").write_text(text)
    card = tmp_path / "card"
    card.mkdir()
    record(card / "a.wav", 5, 1)
    record(card / "b.wav", 400, 2)
    record(card / "c.wav", 5, 3)
    for name in ("a", "b", "c"):
        (card / f"{name}.wav").touch()
    kill_in_the_midst(tmp_path, journal, 1)
    kill_in_the_midst(tmp_path, journal, 2)
    done = neurovocal("run", tmp_path / "killed.yaml", cwd=tmp_path)
    assert done.code == 0, done.err
    (card / ".neurovocal-taken.jsonl").unlink()
    done = neurovocal("run", tmp_path / "whole.yaml", cwd=tmp_path)
    assert done.code == 0, done.err

    expected = exported(tmp_path / "whole.sqlite")
    assert len({stream for stream, _, _ in expected}) == 3
    assert exported(journal) == expected
    assert exported(journal, "--heard", "last", "--stream", "b.wav") == [
        row for row in expected if row[0] == "b.wav"
    ]
    both = exported(journal, "--heard", "all")
    assert len(both) > len(expected)
    assert set(both) == set(expected)
    done = neurovocal("export", journal, "--kinds", "offset")
    assert "note: 2 hearings that a kill or stop cut short left out" in done.err
    # A selection of one run is exported completely.
    first = runs(journal)[0].run
    of_first = [row for row in rows(journal, "--heard", "all") if row["run"] == first]
    assert rows(journal, "--run", first) == of_first
    assert {row["stream"] for row in of_first} == {"a.wav", "b.wav"}


class SharedJournal:
    """A journal that several runs write one after the other."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "j.sqlite"
        self._folder = folder

    def run(self, name: str, events: Iterable[Event]) -> None:
        engine = Engine(self._folder, name, "x.wav")
        seqs: dict[str, int] = {}
        for event in events:
            message = Message(engine.info, event, 0, 9)
            seq = seqs[message.kind] = seqs.get(message.kind, -1) + 1
            engine.journal.write(Message(engine.info, event, seq, 9))
        engine.close()

    def units(self, **choice: object) -> str:
        selection = Selection(kinds=("label",), heard="last", **choice)
        events = [message.event for _, message in read_messages(self.path, selection)]
        return "".join(event.unit for event in events if isinstance(event, Label))


def labels(units: str) -> list[Label]:
    return [Label(0, 0, 9, unit, 0.5, "final", "m") for unit in units]


def again(*names: str, used: bool = False) -> Health:
    sentence = repeat_sentence("/card/x.wav", names, name_was_used=used)
    return Health("source", "recovering", sentence)


OTHER = Health("source", "healthy", replacement_sentence("/card/x.wav"))


@pytest.mark.parametrize(
    ("written", "units"),
    [
        ({"r1": [*labels("ab")], "r2": [again("r1"), *labels("abc")]}, "abc"),
        # What r2 had begun was not committed at its kill, that it had begun was known.
        ({"r1": labels("ab"), "r2": [], "r3": [again("r1", "r2"), *labels("c")]}, "c"),
        # A recorder that uses one name again and again.
        (
            {
                "r1": [*labels("ab"), OTHER, *labels("c")],
                "r2": [again("r1", used=True), *labels("cd"), OTHER, *labels("e")],
                "r3": [again("r2", used=True), *labels("ef")],
            },
            "abcdef",
        ),
        # ... and was killed before anything of the second one was committed.
        (
            {"r1": labels("ab"), "r2": [again("r1", used=True), *labels("cd")]},
            "abcd",
        ),
        # A disk that failed in its midst, in one run.
        ({"r1": [*labels("a"), again("r1"), *labels("ab")]}, "ab"),
        # Somebody else's health, and sentences that only look like it.
        (
            {
                "r1": labels("a"),
                "r2": [
                    Health("source", "recovering", "'r1' is heard again"),
                    Health("zmq", "recovering", again("r1").detail),
                    *labels("b"),
                ],
            },
            "ab",
        ),
    ],
)
def test_only_the_last_reading_remains(
    tmp_path: Path, written: dict[str, list[Event]], units: str
) -> None:
    shared = SharedJournal(tmp_path)
    for name, events in written.items():
        shared.run(name, events)
    assert shared.units() == units


def test_only_readings_in_selected_runs_replace_earlier_ones(tmp_path: Path) -> None:
    shared = SharedJournal(tmp_path)
    shared.run("r1", labels("ab"))
    shared.run("r2", [again("r1"), *labels("abc")])
    assert shared.units(runs=("r1",)) == "ab"
    assert shared.units(runs=("r1", "r2")) == "abc"
    assert shared.units(streams=("elsewhere",)) == ""

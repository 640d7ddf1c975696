"""The whole loop: detect, review, export, train, shadow, promote."""

import csv
import json
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import yaml
from bundles.tiny_bundle import make_tiny_bundle
from bundles.tone_dataset import RATE, UNITS, song
from processes.cli_process import running
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Control
from neurovocal.engine.contracts.types import Control as ControlEvent
from neurovocal.engine.contracts.types import Label
from neurovocal.engine.faults.network import free_port
from neurovocal.engine.journal import Selection, read_messages
from neurovocal.plugins.review.journal import read_journal

Truth = dict[str, list[tuple[float, float, str]]]

RECIPE = {
    "split": {"folds": 2},
    "front_end": {"options": {"frame_length": 128, "hop_length": 64, "scale": "log"}},
    "classifier": {
        "n_hidden": 24,
        "updates": 240,
        "sequence_length": 120,
        "learning_rate": 0.01,
        "validate_every": 60,
    },
    "rnn_rbm": {
        "hidden_scalar": 0.5,
        "recurrent_scalar": 0.5,
        "phases": [
            {"objective": "deterministic", "updates": 20, "learning_rate": 0.01}
        ],
        "validate_every": 20,
    },
}


@dataclass
class Reviewer:
    """A reviewer who knows the truth and uses the page's own requests."""

    client: httpx.Client
    truth: Truth
    n_changes: int = 0

    def review(self) -> None:
        """Label what was found, delete what is no vocalization, add what is missing."""
        rates = {
            each["id"]: each["sample_rate"]
            for each in self.client.get("state").json()["recordings"]
        }
        seen = set()
        for segment in self._segments():
            key = segment["recording"]
            rate = rates[key]
            hit = _best(
                self.truth[key], segment["onset"] / rate, segment["offset"] / rate
            )
            if hit is None or (key, hit) in seen:
                self._edit(action="delete", segment=segment["id"])
                continue
            seen.add((key, hit))
            unit = self.truth[key][hit][2]
            self._edit(action="label", segment=segment["id"], unit=unit)
        for key, rows in self.truth.items():
            for number, (onset_s, offset_s, unit) in enumerate(rows):
                if (key, number) not in seen:
                    onset, offset = (round(s * rates[key]) for s in (onset_s, offset_s))
                    place = {"recording": key, "onset": onset, "offset": offset}
                    self._edit(action="add", unit=unit, **place)

    def _segments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            asked = {"first": len(found), "most": 1000}
            page = self.client.get("segments", params=asked).json()
            found += page["segments"]
            if len(found) >= page["total"]:
                return found

    def _edit(self, **change: Any) -> None:
        answer = self.client.post("edit", json={"author": "Ada", **change}).json()
        self.n_changes += 1
        # What overlaps a segment that spans two is left out, as a person would.
        assert answer["ok"] or "overlap" in answer["error"], answer


def _best(
    rows: Sequence[tuple[float, float, str]], onset_s: float, offset_s: float
) -> int | None:
    """Return the annotated segment that shares most of a found one."""
    shares = [min(offset_s, b) - max(onset_s, a) for a, b, _ in rows]
    if not shares:
        return None
    best = int(np.argmax(shares))
    length = min(offset_s - onset_s, rows[best][1] - rows[best][0])
    return best if shares[best] > length / 2 else None


def complete(*arguments: object) -> str:
    """Run a command, however long it takes; return what it printed."""
    with running(*arguments) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def learn(folder: Path, truth: Truth, *training: object) -> Reviewer:
    """Detect, review, export and train: from recordings to ``bundle``."""
    recordings = folder / "recordings"
    table = recordings / "segments.csv"
    complete("detect", recordings, "--out", table)
    with running("review", recordings, "--port", 0) as process:
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found, process.stderr.read()
        with httpx.Client(
            base_url=f"{found[0]}review/api/", timeout=PATIENCE_S
        ) as client:
            reviewer = Reviewer(client, truth)
            reviewer.review()
            state = client.get("state").json()
        assert state["reviewed"] == state["total"]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    dataset = folder / "dataset"
    complete("review", recordings, "--export", dataset)
    complete("train", dataset, "--out", folder / "bundle", *training)
    return reviewer


def promote(folder: Path, present: str, source: dict[str, Any]) -> list[str]:
    """Run a station, promote the new bundle beside it; return units labelled since."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    station = {
        "version": 1,
        "station": "aviary",
        "source": {"plugin": "file", "options": source},
        "bundle": present,
        "models": [{"plugin": "classifier"}],
        "control": {"plugin": "zmq", "options": {"endpoint": endpoint}},
        "sinks": [{"plugin": "journal", "options": {"path": "aviary.sqlite"}}],
    }
    (folder / "station.yaml").write_text(yaml.safe_dump(station))
    new = yaml.safe_dump({**station, "bundle": "bundle"})
    (folder / "new.yaml").write_text(new)
    with running("run", "station.yaml", "--json", cwd=folder) as process:
        began = process.stdout.readline()  # it runs
        assert began, process.stderr.read()
        # A full pipe would stop the display.
        Thread(target=process.stdout.read, daemon=True).start()
        with Control(endpoint, timeout=PATIENCE_S) as control:
            control.swap("new.yaml", shadow=True)

            def compared() -> bool:
                shadows = (control.status()["swap"] or {}).get("shadows", [])
                return bool(shadows) and shadows[0]["segments"]["new"] >= 6

            until(compared)
            control.promote()
            until(lambda: control.status()["swap"]["state"] == "swapped")
            until(lambda: len(labels_since_swap(folder / "aviary.sqlite")) >= 12)
            control.stop()
        process.wait(PATIENCE_S)
    journal = folder / "aviary.sqlite"
    assert list(read_messages(journal, Selection(kinds=("comparison",))))
    return labels_since_swap(journal)


def labels_since_swap(journal: Path) -> list[str]:
    """Return the units of final labels since the new bundle took over."""
    kinds = Selection(kinds=("control", "label"))
    events = [message.event for _, message in read_messages(journal, kinds)]
    at = [e.sample for e in events if isinstance(e, ControlEvent)]
    labels = [e for e in events if isinstance(e, Label) and e.status == "final"]
    return [label.unit for label in labels if at and label.onset > at[0]]


@pytest.mark.timeout(900)
def test_from_unlabelled_recordings_to_a_promoted_bundle(tmp_path):
    """Tones, a training of seconds, and a present bundle that knows no tone."""
    (tmp_path / "recordings").mkdir()
    rng, truth = np.random.default_rng(0), {}
    for number in range(8):
        samples, segments = song(rng)
        name = f"song{number}.wav"
        soundfile.write(tmp_path / "recordings" / name, samples, RATE, subtype="FLOAT")
        truth[name] = segments
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    reviewer = learn(tmp_path, truth, "--config", tmp_path / "recipe.yaml")
    assert reviewer.n_changes >= 48
    present = make_tiny_bundle(tmp_path / "old", sample_rate=RATE)
    source = {
        "path": "recordings/*.wav",
        "pace": "realtime",
        "streams": "one",
        "repeat": 0,
    }
    units = promote(tmp_path, str(present), source)
    assert len(units) >= 6
    assert {*units} <= {*UNITS, "unknown"}
    assert sum(unit in UNITS for unit in units) > len(units) / 2
    # The journal of this run can be reviewed in turn.
    assert len(read_journal(tmp_path / "aviary.sqlite").segments) > len(units)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_minutes_of_a_finch(tmp_path, data_folder):
    """The tutorial (docs/tutorials/review.md), with a reviewer who knows the truth."""
    folder = data_folder / "finch_bird0"
    rows: Truth = {}
    with (folder / "annotations.csv").open() as table:
        for row in csv.DictReader(table):
            span = float(row["onset_s"]), float(row["offset_s"]), row["label"]
            rows.setdefault(row["file"], []).append(span)
    names = sorted(rows)
    (tmp_path / "recordings").mkdir()
    truth, parts, at_s, rate = [], [], 0.0, 0
    while at_s < 300:
        name = names.pop(0)
        samples, rate = soundfile.read(folder / name, dtype="int16")
        truth += [(a + at_s, b + at_s, unit) for a, b, unit in rows[name]]
        parts.append(samples)
        at_s += len(samples) / rate
    soundfile.write(tmp_path / "recordings" / "day1.flac", np.concatenate(parts), rate)
    learn(tmp_path, {"day1.flac": truth}, "--minutes", 4)
    day2 = [str(folder / name) for name in names[:12]]
    source = {"path": day2, "pace": "realtime", "streams": "one", "repeat": 0}
    units = promote(tmp_path, "bengalese-finch", source)
    assert {*units} <= {*"012345678", "unknown"}
    out = complete("label", *day2, "--bundle", tmp_path / "bundle", "--out", "-")
    found = list(csv.DictReader(out.splitlines()))
    right = total = 0
    for name in names[:12]:
        own = [row for row in found if row["file"].endswith(name)]
        for onset_s, offset_s, unit in rows[name]:
            total += 1
            right += any(
                row["label"] == unit
                and min(float(row["offset_s"]), offset_s)
                - max(float(row["onset_s"]), onset_s)
                > (offset_s - onset_s) / 2
                for row in own
            )
    print(json.dumps({"annotated": total, "right": right}))
    assert right > 0.6 * total

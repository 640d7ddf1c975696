"""Commands on narrow terminals: what they say fits, whole words, nothing is lost."""

import json
from collections import Counter
from pathlib import Path

import pytest
from processes.cli_process import neurovocal

from neurovocal.engine.cli.commands import listen
from neurovocal.engine.cli.commands.control import _lines
from neurovocal.engine.cli.commands.listen import as_line, heading
from neurovocal.engine.cli.run_summary import RunTally, summary_lines
from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.client.received import received_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.types import (
    Comparison,
    Event,
    Gap,
    Health,
    Label,
    Ledger,
    Message,
    NearMiss,
    Offset,
    StreamInfo,
)
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.wire.codec import decode, encode

INFO = StreamInfo("bengalese-finch.flac", 32000)


def received(event: Event, ledger: Ledger | None = None):
    message = Message(INFO, event, 0, 64000, None, ledger)
    return received_of(*decode(encode(message, "run", None)))


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize(
    "event",
    [
        Label(1, 32000, 33344, "i", 0.96, "final", "m"),
        Label(1, 32000, None, "i", 0.96, "provisional", "m"),
        Health("source", "recovering", "device 'UMC404' stopped " + "delivering " * 9),
        Comparison(32000, 33000, "a", 0.9, None, float("nan"), False, "new.yaml"),
        Gap(32000, 64000, "device lost"),
    ],
)
def test_lines_of_listen_fit_and_hold_everything(event: Event, columns: int) -> None:
    one = received(event)
    text = as_line(one, columns)
    assert max(map(len, text.splitlines())) <= columns
    whole, shown = as_line(one).split(), text.split()
    assert [word for word in whole if word not in shown] == [INFO.stream]
    if isinstance(event, Label) and columns >= 80:
        assert "\n" not in text
    column = heading(one, columns).index("event")
    assert all(not line[:column].strip() for line in text.splitlines()[1:])


def test_the_columns_of_listen_stand_under_their_headings() -> None:
    one = received(Gap(32000, 64000, "x"), Ledger(1.0, 2.0, 3.0))
    head, line = heading(one), as_line(one, 80)
    assert head.split() == ["time,", "s", "late,", "ms", "kind", "stream", "event"]
    for name, value in (("kind", "gap"), ("stream", "…"), ("event", "1000.0 ms")):
        assert line.index(value) == head.index(name)


def test_a_run_ends_with_what_it_heard_and_what_is_next(tmp_path: Path) -> None:
    sink = f"sinks=[{{plugin: journal, options: {{path: '{tmp_path}/j.sqlite'}}}}]"
    plan = plan_of(locate_config("demo", [sink]))
    tally = RunTally()
    for segment, unit in enumerate("aab"):
        onset = 32000 * segment
        events = [
            Offset(segment, onset, onset + 99, False),
            Label(segment, onset, None, unit, 0.5, "provisional", "m"),
            Label(segment, onset, onset + 99, unit, 0.5, "final", "m"),
        ]
        for event in events:
            tally.add(Message(INFO, event, segment, onset))
    tally.add(Message(INFO, NearMiss(0, 9, 1.0, 2.0, "quiet", 4), 0, 9))
    tally.add(Message(INFO, Gap(0, 16000, "overrun"), 0, 9))
    outcome = Outcome(seconds=125.0, dropped=Counter(frames=7))
    lines = summary_lines(outcome, tally, plan, is_demo=True)
    assert lines[:4] == [
        "heard 2 min 5 s: 3 segments, 3 labels, 5 near misses",
        "  a 2  b 1",
        "gaps: 1 overrun; 0.5 s lost",
        "messages dropped by full queues: 7",
    ]
    assert "neurovocal summary" in lines[4]
    assert any(line.startswith("  neurovocal run microphone") for line in lines)
    assert max(len(line) for line in lines[5:]) <= 80
    assert "next:" not in summary_lines(outcome, tally, plan, is_demo=False)


def test_many_units_are_wrapped(tmp_path: Path) -> None:
    plan = plan_of(locate_config("demo", []))
    tally = RunTally()
    for number in range(40):
        unit = f"a-rather-long-unit-{number}"
        label = Label(number, 0, 9, unit, 0.5, "final", "m")
        tally.add(Message(INFO, label, number, 9))
    lines = summary_lines(Outcome(seconds=1.0), tally, plan, is_demo=True)
    assert max(map(len, lines)) <= 80
    assert "  and 28 rarer units" in lines


def test_a_setting_is_answered_in_seconds_and_samples() -> None:
    applied = [{"stream": "cage", "sample": 812032, "seconds": 25.376}]
    assert _lines({"applied": applied}) == ["cage: from 25.376 s (sample 812032)"]
    del applied[0]["seconds"]
    assert _lines({"applied": applied}) == ["cage: from sample 812032"]


def test_the_figures_of_a_shadow_fit() -> None:
    counts = {"old": 1000, "new": 1001, "equal": 0.98}
    shadow = {
        "stream": "cage",
        "seconds": 3600.0,
        "segments": counts,
        "labels": counts,
        "confusions": [["a", "b", number] for number in range(9, 2, -1)],
        "load": 0.25,
        "lag_s": 0.1,
    }
    swap = {"state": "shadow", "stays": True, "config": "new.yaml", "shadows": [shadow]}
    lines = _lines({"run": "r", "lanes": [], "swap": swap})
    assert lines[1] == "shadow new.yaml"
    assert max(map(len, lines)) <= 80
    assert "    9 times a, shadow b" in lines
    assert lines[-1] == "    and 2 other confusions"


def test_bundles_are_listed(tmp_path: Path) -> None:
    done = neurovocal("bundle", "list", "--json")
    found = {one["name"]: one for one in json.loads(done.out)}
    assert found["bengalese-finch"]["units"] == 11
    assert "detector_network" in found["any-animal"]["models"]
    text = neurovocal("bundle", "list").out
    assert all(name in text.splitlines() for name in found)
    assert max(map(len, text.splitlines())) <= 80
    done = neurovocal("bundle", "list", tmp_path)
    assert (done.code, done.out) == (0, "")
    assert "no bundle in" in done.err


def test_plugins_are_listed_in_80_columns_and_nested_options_explained() -> None:
    lines = neurovocal("plugins").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {"sources", "features", "detectors", "sinks"} <= set(lines)
    text = neurovocal("plugins", "clips").out
    assert "  select  (options of its own)" in text
    assert "      min_posterior  (None)\n          Only segments" in text
    assert "SelectOptions" not in text


@pytest.mark.parametrize(
    ("kinds", "hint"),
    [
        ("label", "; without a model there are no labels: --kinds onset,offset"),
        ("label,offset", ""),
    ],
)
def test_listen_says_that_labels_need_a_model_if_nothing_is_heard(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kinds: str,
    hint: str,
) -> None:
    monkeypatch.setattr(listen, "_NOTE_AFTER_S", 0.0)
    listen.listen("tcp://127.0.0.1:9", kinds=kinds, timeout=0.01)
    assert capsys.readouterr().err == (
        "nothing heard from tcp://127.0.0.1:9 yet, waiting (is an engine there, and "
        f"does something sound?{hint})\n"
    )

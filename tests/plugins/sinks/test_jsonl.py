"""JSON lines sink: identical bytes for identical audio."""

import json
from pathlib import Path

import numpy as np
import pytest

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    Frames,
    Label,
    Ledger,
    Message,
    Offset,
    StreamInfo,
)
from neurovocal.engine.testing import check_sink
from neurovocal.plugins.sinks.jsonl import JsonlOptions, JsonlSink, plugin

INFO = StreamInfo("bird.wav", 32000)
FRAMES = Frames(4, 128, 256, np.array([[0.5, np.nan]], np.float32))


def build(run: str = "run", **options: object) -> JsonlSink:
    checked = JsonlOptions.model_validate(options)
    sink = plugin.build(checked, BuildContext(SystemClock(), run))
    assert isinstance(sink, JsonlSink)
    return sink


def messages(utc_ns: int | None = None, ledger: Ledger | None = None) -> list[Message]:
    label = Label(3, 100, 200, "é", 0.1, "final", "m")
    return [
        Message(INFO, Offset(3, 100, 200, truncated=True), 3, 210, utc_ns, ledger),
        Message(INFO, label, 3, 210, utc_ns, ledger),
    ]


def written(path: Path, events: list[Message], **options: object) -> bytes:
    sink = build(path=str(path), **options)
    sink.open()
    for message in events:
        sink.write(message)
    sink.close()
    return path.read_bytes()


def test_is_installed_under_its_name() -> None:
    assert Registry().get("sink", "jsonl") is plugin


def test_keeps_the_contract_of_sinks(tmp_path: Path) -> None:
    check_sink(lambda: build(path=str(tmp_path / "out")), messages())


def test_reopened_sink_appends(tmp_path: Path) -> None:
    """The engine opens a sink again after a failure: earlier lines stay."""
    path = tmp_path / "again"
    sink = build(path=str(path))
    for message in messages():
        sink.open()
        sink.write(message)
        sink.close()
    assert path.read_bytes() == written(tmp_path / "whole", messages())


def test_line_equals_the_golden_form(tmp_path: Path) -> None:
    assert written(tmp_path / "out", messages()).decode() == (
        '{"kind":"offset","v":1,"stream":"bird.wav","seq":3,"sample":200,"at":210,'
        '"sample_rate":32000,"segment":3,"onset":100,"truncated":true}\n'
        '{"kind":"label","v":1,"stream":"bird.wav","seq":3,"sample":100,"at":210,'
        '"sample_rate":32000,"segment":3,"onset":100,"offset":200,"unit":"é",'
        '"posterior":0.1,"status":"final","model":"m"}\n'
    )


def test_lines_do_not_depend_on_run_and_time(tmp_path: Path) -> None:
    early = written(tmp_path / "a", messages())
    late = written(tmp_path / "b", messages(123, Ledger(1.0, 2.0, 3.0)), run="other")
    assert early == late


def test_arrays_are_described_or_written_with_values(tmp_path: Path) -> None:
    frames = [Message(INFO, FRAMES, 0, 0)]
    short = json.loads(written(tmp_path / "a", frames))
    assert short["shape"] == [1, 2]
    assert "values" not in short
    full = json.loads(written(tmp_path / "b", frames, values=True))
    assert full["values"] == [[0.5, None]]


def test_existing_file_is_replaced_or_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "out"
    first = written(path, messages())
    assert written(path, messages()) == first
    assert written(path, messages(), append=True) == first * 2


def test_stdout_is_flushed_line_by_line(capfd: pytest.CaptureFixture[str]) -> None:
    sink = build()
    sink.open()
    sink.write(messages()[0])
    assert json.loads(capfd.readouterr().out)["kind"] == "offset"
    sink.close()


def test_health_and_anchors_are_not_subscribed() -> None:
    assert JsonlSink.wants == {"onset", "offset", "label", "gap", "near_miss"}

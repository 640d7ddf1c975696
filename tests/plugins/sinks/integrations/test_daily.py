"""Daily sink: a file a day, at a local time, once, also for days without an engine."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from processes.waiting import until
from stages.journals import build as build_journal
from stages.journals import label, write

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.testing import check_sink
from neurovocal.plugins.sinks.integrations.daily import DailyOptions, plugin

pytestmark = pytest.mark.usefixtures("no_threads_left", "quiet")
DAY_S = 86_400
NOON = int(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()) * NS


def make(folder, clock, **options):
    path = str(folder / "j.sqlite")
    checked = DailyOptions(journal=path, path=str(folder / "out"), **options)
    return plugin.build(checked, BuildContext(clock, "run-1", stream="aviary/3"))


def files(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


def test_is_installed_and_keeps_the_contract_of_sinks(tmp_path):
    assert Registry().get("sink", "daily") is plugin
    write(tmp_path / "j.sqlite", [])
    check_sink(lambda: make(tmp_path, ManualClock(NOON)), [])


def test_a_day_is_written_once_and_days_without_an_engine_are_caught_up_on(tmp_path):
    clock = ManualClock(NOON, autojump=False)
    journal = build_journal(tmp_path / "j.sqlite", commit_ms=0)
    journal.open()
    journal.write(replace(label(0), utc_ns=NOON))
    sink = make(tmp_path, clock, summary_at="07:00", timezone="Europe/Berlin")
    sink.open()
    clock.advance(17 * 3600 - 1)
    assert files(tmp_path) == []
    until(lambda: clock.advance(0.1) or files(tmp_path))
    until(lambda: "2026-06-02" in (tmp_path / "j.sqlite.daily.json").read_text())
    sink.close()
    first = tmp_path / "out" / "aviary%2F3-2026-06-02.json"
    summary = json.loads(first.read_text())
    assert summary["total"]["units"] == {"b": 1}
    first.write_text("kept")
    clock.advance(10 * DAY_S)
    sink = make(tmp_path, clock, summary_at="07:00", timezone="Europe/Berlin")
    sink.open()
    # The last week: earlier days are left out.
    until(lambda: clock.advance(0.1) or len(files(tmp_path)) == 8)
    until(lambda: "2026-06-12" in (tmp_path / "j.sqlite.daily.json").read_text())
    sink.close()
    journal.close()
    assert files(tmp_path)[0] == "aviary%2F3-2026-06-02.json"
    assert files(tmp_path)[1:] == [
        f"aviary%2F3-2026-06-{day:02}.json" for day in range(6, 13)
    ]
    assert first.read_text() == "kept"


@pytest.mark.parametrize(
    ("form", "beginning"), [("csv", "start,heard_s,"), ("table", "Summary of j.sqlite")]
)
def test_forms_are_those_of_the_command(tmp_path, form, beginning):
    clock = ManualClock(NOON, autojump=False)
    write(tmp_path / "j.sqlite", [replace(label(0), utc_ns=NOON)])
    sink = make(tmp_path, clock, format=form)
    sink.open()
    clock.advance(DAY_S)
    until(lambda: clock.advance(0.1) or files(tmp_path))
    sink.close()
    (path,) = (tmp_path / "out").iterdir()
    assert path.read_text().startswith(beginning)


def test_a_folder_that_cannot_be_written_is_told_and_tried_again(tmp_path):
    clock = ManualClock(NOON, autojump=False)
    write(tmp_path / "j.sqlite", [])
    sink = make(tmp_path, clock)
    sink.open()
    # A folder has the name of the file: as root nothing else is refused.
    name = "aviary%2F3-2026-06-02.json"
    (tmp_path / "out" / name / "x").mkdir(parents=True)
    clock.advance(DAY_S)
    until(lambda: clock.advance(0.1) or sink.trouble)
    assert name in sink.trouble
    (tmp_path / "out" / name / "x").rmdir()
    (tmp_path / "out" / name).rmdir()
    until(lambda: clock.advance(1.0) or files(tmp_path))
    sink.close()

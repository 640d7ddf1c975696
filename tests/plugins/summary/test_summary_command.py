"""``neurovocal summary``: tables, CSV, JSON, pictures and refusals."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from processes.cli_process import neurovocal

from neurovocal.engine.journal import summarize
from neurovocal.engine.journal.periods import (
    Activity,
    Outage,
    Period,
    RunSummary,
    Summary,
)
from neurovocal.plugins.summary.picture import draw_summary
from neurovocal.plugins.summary.tables import csv_text, table_text

RATE = 8000
CONFIG = """\
version: 1
source: {plugin: file, options: {path: noise.wav, start_utc: "2026-05-01T04:59:58Z"}}
detector: {plugin: energy, options: {low_hz: 500, high_hz: 3500}}
sinks: [{plugin: journal, options: {path: j.sqlite}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the journal of four seconds with twelve bursts."""
    folder = tmp_path_factory.mktemp("summary")
    rng = np.random.default_rng(1)
    values = rng.uniform(-0.5, 0.5, (12, RATE // 3))
    values[:, RATE // 10 :] *= 0.001
    soundfile.write(folder / "noise.wav", values.ravel(), RATE, subtype="PCM_16")
    (folder / "c.yaml").write_text(CONFIG)
    done = neurovocal("run", folder / "c.yaml", cwd=folder)
    assert done.code == 0, done.err
    return folder


def hours(n: int, units: int, streams: int = 1) -> Summary:
    """Return a summary of `n` hours with losses and many units."""
    names = [f"unit-{number}" for number in range(units)]
    periods = [
        Period(
            f"2026-05-{1 + hour // 24:02d}T{hour % 24:02d}:00:00+00:00",
            heard_s=3500.0,
            lost_s=100.0 * (hour % 2),
            segments=10 * units,
            unlabelled=hour,
            near_misses=3,
            units={name: 100 // (1 + place) for place, name in enumerate(names)},
        )
        for hour in range(n)
    ]
    counts = {name: n * 100 // (1 + place) for place, name in enumerate(names)}
    total = Period(None, 3500.0 * n, 50.0 * n, 0.0, 10 * units * n, 7, 3 * n, counts)
    outages = [
        Outage("device lost", "r", "s", "2026-05-01T01:00:00+00:00", 7, 100.0 + k)
        for k in range(30)
    ]
    return Summary(
        by="hour",
        timezone="UTC",
        total=total,
        periods=periods,
        activity=[Activity(hour, 3500.0 * (hour < n), 10 * hour) for hour in range(24)],
        streams={f"stream-{number}": total for number in range(streams)},
        outages=outages,
        lost={"device lost": (30, 3450.0), "overrun": (1, 0.5)},
        runs=[RunSummary("r", "2026-05-01T00:00:00+00:00", None, "open", 0)],
    )


def test_the_table_has_what_the_function_counts(folder: Path) -> None:
    done = neurovocal("summary", "j.sqlite", cwd=folder)
    assert done.code == 0, done.err
    counted = summarize(folder / "j.sqlite")
    assert [period.start for period in counted.periods] == [
        "2026-05-01T04:00:00+00:00",
        "2026-05-01T05:00:00+00:00",
    ]
    assert done.out == table_text(counted, "j.sqlite", 80)
    assert "2026-05-01 05:00" in done.out
    assert f"{counted.total.segments} segments" in done.out


def test_csv_and_json_have_the_same_numbers(folder: Path) -> None:
    counted = summarize(folder / "j.sqlite", by="day")
    done = neurovocal(
        "summary", "j.sqlite", "--by", "day", "--format", "csv", cwd=folder
    )
    (row,) = csv.DictReader(io.StringIO(done.out))
    assert row["start"] == "2026-05-01T00:00:00+00:00"
    assert int(row["segments"]) == counted.total.segments > 5
    done = neurovocal(
        "summary", "j.sqlite", "--by", "day", "--format", "json", cwd=folder
    )
    assert json.loads(done.out) == counted.as_dict()


def test_files_are_reported_and_only_their_own_kind_is_replaced(folder: Path) -> None:
    arguments = ("summary", "j.sqlite", "--out", "s.csv", "--format", "csv")
    more = ("--picture", "s.png")
    for _ in range(2):
        done = neurovocal(*arguments, *more, cwd=folder)
        assert done.code == 0, done.err
        assert done.err == "wrote 's.csv'\nwrote 's.png'\n"
        assert done.out == ""
    assert (folder / "s.png").read_bytes().startswith(b"\x89PNG")
    for path in ("noise.wav", "c.yaml", "j.sqlite"):
        before = (folder / path).read_bytes()
        done = neurovocal("summary", "j.sqlite", "--out", path, cwd=folder)
        assert done.code == 1, path
        assert (folder / path).read_bytes() == before
    done = neurovocal("summary", "j.sqlite", "--picture", "s.jpg", cwd=folder)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "end in .png" in done.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("none.sqlite",), "does not exist"),
        (("noise.wav",), "is not a journal"),
        (("j.sqlite", "--timezone", "Europe/Atlantis"), "'Europe/Atlantis'"),
        (("j.sqlite", "--timezone", "../../etc"), "is not known"),
        (("j.sqlite", "--stream", "noise"), "did you mean 'noise.wav'"),
        (("j.sqlite", "--run", "x"), "has no run 'x'"),
        (("j.sqlite", "--since", "2026-05-01T04:00"), "no time zone"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    folder: Path, arguments: tuple[str, ...], error: str
) -> None:
    done = neurovocal("summary", *arguments, cwd=folder)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert error in done.err


def test_options_select(folder: Path) -> None:
    arguments = ("--since", "2026-05-01T05:00Z", "--timezone", "Europe/Berlin")
    done = neurovocal("summary", "j.sqlite", *arguments, cwd=folder)
    assert "2026-05-01 07:00" in done.out
    assert "06:00" not in done.out
    done = neurovocal("summary", "j.sqlite", "--until", "2020-01-01T00:00Z", cwd=folder)
    assert (done.code, "note: nothing was heard" in done.err) == (0, True)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("units", [0, 1, 40])
def test_tables_fit_their_width(width: int, units: int) -> None:
    text = table_text(hours(30, units, streams=14), "a" * 300, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(60, width)
    heading = next(line for line in lines if line.startswith("hour  "))
    rows = lines[lines.index(heading) + 1 :][:30]
    assert all(len(row) <= len(heading) for row in rows)
    if units == 40 and width == 200:
        assert "unit-0" in heading
        assert heading.endswith("more")
        numbers = [int(one) for one in rows[0].split() if one.isdigit()]
        assert sum(numbers[3:]) == sum(100 // (1 + place) for place in range(40))


def test_names_from_others_do_nothing(folder: Path) -> None:
    one = hours(1, 1)
    names = {"\x1b[31m=cmd": 1, "=1+1": 2}
    one.periods[0].units.clear()
    one.periods[0].units.update(names)
    one.total.units.clear()
    one.total.units.update(names)
    assert "\x1b" not in table_text(one, "j\x1b", 80)
    assert csv_text(one).splitlines()[0].endswith("unit:=1+1,unit:\x1b[31m=cmd")
    assert draw_summary(one, "$x$").startswith(b"\x89PNG")


def test_pictures_of_nothing_and_of_weeks_are_drawn() -> None:
    empty = Summary(
        "day", "UTC", Period(None), [], [Activity(h) for h in range(24)], {}, [], {}, []
    )
    assert draw_summary(empty, "j").startswith(b"\x89PNG")
    assert draw_summary(hours(24 * 20, 30), "j").startswith(b"\x89PNG")


def test_a_picture_shows_the_labels_of_recordings_of_unknown_time() -> None:
    def columns_with_bars(units: dict[str, int]) -> int:
        period = Period(None, heard_s=60.0, segments=9, units=units)
        day = [Activity(hour) for hour in range(24)]
        summary = Summary("hour", "UTC", period, [period], day, {}, [], {}, [])
        pixels = imread(io.BytesIO(draw_summary(summary, "j")))[:, :, :3]
        ink = np.abs(pixels - to_rgb("#35608d")).max(axis=2) < 0.02
        return int(ink.any(axis=0).sum())

    assert columns_with_bars({}) == 0
    assert columns_with_bars({"a": 7, "b": 2}) > 500


def test_repeated_recordings_are_told(folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j.sqlite"
    journal.write_bytes((folder / "j.sqlite").read_bytes())
    with closing(sqlite3.connect(journal)) as connection, connection:
        (run,) = connection.execute("SELECT run FROM runs").fetchone()
        connection.execute(
            "INSERT INTO messages SELECT 'again', 'health', stream, 0, 0, NULL, ?, "
            "NULL, '' FROM messages LIMIT 1",
            (
                json.dumps(
                    {
                        "kind": "health",
                        "v": 1,
                        "stream": "noise.wav",
                        "seq": 0,
                        "sample": 0,
                        "at": 0,
                        "sample_rate": RATE,
                        "stage": "source",
                        "state": "recovering",
                        "detail": "'/noise.wav' is heard again, whole: "
                        f"run {run} did not get to its end",
                    },
                    separators=(",", ":"),
                ),
            ),
        )
        connection.execute("INSERT INTO runs SELECT 'again', 9, '', '', 9, 0 FROM runs")
    done = neurovocal("summary", journal)
    assert done.code == 0, done.err
    assert "note: 1 hearing" in done.err
    assert "\n0 segments" in done.out
    done = neurovocal("summary", journal, "--heard", "all")
    assert "\n0 segments" not in done.out

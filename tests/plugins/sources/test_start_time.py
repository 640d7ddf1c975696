"""Start times of recordings, from all metadata that recorders write."""

import json
import shutil
import struct
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from processes.cli_process import RECORDING, neurovocal
from pydantic import ValidationError

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Anchor
from neurovocal.plugins.sources.audio_files.start_time import (
    find_start,
    utc_ns,
    zone_of,
)
from neurovocal.plugins.sources.file import plugin


def at(*parts):
    return utc_ns(datetime(*parts, tzinfo=UTC))


def write(path, **metadata):
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for name, text in metadata.items():
            setattr(file, name, text)
        file.write(np.zeros(80, np.float32))
    return path


def add_chunk(path, name, body):
    body += b"\0" * (len(body) % 2)
    raw = path.read_bytes() + name + struct.pack("<I", len(body)) + body
    path.write_bytes(raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:])


def bext(date, time):
    return bytes(320) + f"{date}{time}".encode() + bytes(264)


def start_of(path, zone=None, **metadata):
    texts = {"comment": "", "date": "", **metadata}
    return find_start(path, **texts, zone=zone and zone_of(zone))


@pytest.mark.parametrize(
    ("name", "zone", "expected"),
    [
        ("20210513_190000.WAV", "+02:00", at(2021, 5, 13, 17)),
        ("20210513_190000.WAV", "Europe/Berlin", at(2021, 5, 13, 17)),
        ("20210113_190000.WAV", "Europe/Berlin", at(2021, 1, 13, 18)),
        ("SMM04711_20210513_190000.wav", "UTC", at(2021, 5, 13, 19)),
        ("STATION_0+1_20210513-190000.flac", "UTC", at(2021, 5, 13, 19)),
        ("aviary_20210513T190000+0200.wav", None, at(2021, 5, 13, 17)),
        ("aviary_20210513T190000Z_ch1.wav", "+05:00", at(2021, 5, 13, 19)),
        ("2021-05-13_19-00-00.wav", "UTC", at(2021, 5, 13, 19)),
        ("2021-05-13T19:00:00-03:30.wav", None, at(2021, 5, 13, 22, 30)),
        ("bat_20210513_190000_250.wav", "UTC", at(2021, 5, 13, 19) + NS // 4),
        ("5C6D3A4A.WAV", None, 0x5C6D3A4A * NS),
        ("20210513.wav", "UTC", None),
        ("DEADBEEF.WAV", None, None),  # 2088
        ("20211313_190000.wav", "UTC", None),
        ("20210513_250000.wav", "UTC", None),
        ("120210513_190000.wav", "UTC", None),
        ("song12.wav", "UTC", None),
    ],
)
def test_start_time_from_the_file_name(tmp_path, name, zone, expected):
    path = tmp_path / name
    path.write_bytes(b"RIFF")
    assert start_of(path, zone).utc_ns == expected


def test_a_time_without_a_zone_is_not_used(tmp_path):
    path = write(tmp_path / "20210513_190000.wav")
    start = start_of(path)
    assert start.utc_ns is None
    assert str(start) == (
        "2021-05-13 19:00:00 by its file name, of an unknown zone (give timezone)"
    )
    # Half past two is twice on the day on which summer ends, and never when it begins.
    for day in ("20211031", "20210328"):
        path = write(tmp_path / f"{day}_023000.wav")
        assert "change of clocks" in str(start_of(path, "Europe/Berlin"))
        assert start_of(path, "+01:00").utc_ns is not None


def test_precedence_of_the_origins(tmp_path):
    path = write(tmp_path / "20210513_060000.wav")
    assert str(start_of(path, "UTC")) == "2021-05-13T06:00:00.000Z (file name, UTC)"
    texts = {"date": "2021-05-13T05:00:00"}
    assert start_of(path, "UTC", **texts).utc_ns == at(2021, 5, 13, 5)
    add_chunk(path, b"bext", bext("2021-05-13", "04:00:00"))
    assert start_of(path, "+01:00", **texts).utc_ns == at(2021, 5, 13, 3)
    texts["comment"] = "Recorded at 03:00:00 13/05/2021 (UTC) by AudioMoth 24"
    assert start_of(path, "+09:00", **texts).utc_ns == at(2021, 5, 13, 3)
    add_chunk(path, b"guan", b"GUANO|Version: 1.0\nTimestamp: 2021-05-13T02:00:00\n")
    # Without a zone GUANO is not believed, and the next that names one is.
    assert start_of(path, **texts).origin == "AudioMoth comment"
    assert (
        str(start_of(path, "UTC", **texts)) == "2021-05-13T02:00:00.000Z (GUANO, UTC)"
    )


@given(st.text(max_size=60), st.text(max_size=60), st.binary(max_size=700))
def test_arbitrary_metadata_raises_no_error(tmp_path_factory, comment, date, body):
    path = tmp_path_factory.mktemp("any") / "x.wav"
    size = struct.pack("<I", len(body))
    path.write_bytes(b"RIFF\0\0\0\0WAVEbext" + size + body + b"guan\xff\xff\xff\xff")
    find_start(path, comment, date, UTC)


def test_a_file_source_uses_its_zone_and_notes_unused_times(tmp_path):
    path = write(tmp_path / "20210513_190000.wav")
    context = BuildContext(ManualClock(), "run")
    source = plugin.build(plugin.options(path=str(path)), context)
    source.open()
    assert source.notices == [
        f"when '{path}' began is not known: it says 2021-05-13 19:00:00 by its file "
        "name, of an unknown zone (give timezone)"
    ]
    options = plugin.options(path=str(path), timezone="Europe/Berlin")
    source = plugin.build(options, context)
    assert list(source.describe()) == [
        f"'{path}' began: 2021-05-13T17:00:00.000Z (file name, Europe/Berlin)"
    ]
    source.open()
    source.read(0)
    assert source.read(0) == Anchor(0, at(2021, 5, 13, 17))
    assert not source.notices
    with pytest.raises(ValidationError, match="no time zone is called 'Berlin'"):
        plugin.options(path="x", timezone="Berlin")


def test_check_shows_the_start_that_is_used_and_where_it_was_read(tmp_path):
    path = write(tmp_path / "20210513_190000.wav")
    config = tmp_path / "c.yaml"
    options = f"{{path: {path}, timezone: '+02:00'}}"
    config.write_text(
        f"version: 1\nsource: {{plugin: file, options: {options}}}\n"
        "sinks: [{plugin: jsonl, options: {path: out.jsonl}}]\n"
    )
    done = neurovocal("check", config)
    assert (
        f"'{path}' began: 2021-05-13T17:00:00.000Z (file name, UTC+02:00)" in done.out
    )
    assert done.code == 0


@pytest.mark.parametrize("command", ["label", "detect"])
def test_tables_show_the_start_that_was_used(tmp_path, command):
    path = tmp_path / "20210513_190000.flac"
    shutil.copy(RECORDING, path)
    done = neurovocal(command, path, "--timezone", "Europe/Berlin", "--json")
    said = f"'{path}' began: 2021-05-13T17:00:00.000Z (file name, Europe/Berlin)"
    assert said in done.err.splitlines()
    rows = [json.loads(line) for line in done.out.splitlines()]
    began = datetime(2021, 5, 13, 17, tzinfo=UTC)
    for row in rows:
        assert row["start_utc"] == "2021-05-13T17:00:00.000Z"
        after = datetime.fromisoformat(row["onset_utc"]) - began
        assert abs(after.total_seconds() - row["onset_s"]) < 0.0011
    assert len(rows) > 50
    doubted = neurovocal(command, path)
    assert "of an unknown zone (give timezone)" in doubted.err
    table = [line.split(",")[1] for line in doubted.out.splitlines()[1:]]
    assert [float(onset_s) for onset_s in table] == [row["onset_s"] for row in rows]
    unknown = neurovocal(command, RECORDING, "--json")
    assert json.loads(unknown.out.splitlines()[0])["onset_utc"] is None
    assert unknown.err == ""

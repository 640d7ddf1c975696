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
        ("bat_20210513_190000.250.wav", "UTC", at(2021, 5, 13, 19) + NS // 4),
        ("bat_20210513T190000.2505+0000.wav", None, at(2021, 5, 13, 19, 0, 0, 250500)),
        # Numbers of segments are neither fractions nor zones.
        ("20210513_190000_250.wav", "UTC", at(2021, 5, 13, 19)),
        ("20210513_190000-0001.wav", "Europe/Berlin", at(2021, 5, 13, 17)),
        ("20210513_190000-0100.wav", "Europe/Berlin", at(2021, 5, 13, 17)),
        ("20210513_190000-0001.wav", None, None),
        ("20210513T190000-0012.wav", "UTC", at(2021, 5, 13, 19)),
        ("20210513_190000+9999.wav", "UTC", at(2021, 5, 13, 19)),
        # Two times are begin and end, if they can be.
        (
            "S20240815T091156.982648+1000_E20240815T091251.967555+1000_-12.3+78.9.wav",
            None,
            at(2024, 8, 14, 23, 11, 56, 982648),
        ),
        ("20210513_190000_20210513_200000.wav", "UTC", at(2021, 5, 13, 19)),
        ("20210513_190000_20200513_200000.wav", "UTC", None),
        ("20210401_120000_20210513_190000.wav", "UTC", None),
        # Clocks that are wrong or were never set.
        ("00010101T000000Z.wav", None, None),
        ("19791231T235959Z.wav", None, None),
        ("19800101_000013.wav", "UTC", None),
        ("20000101_000013.wav", "UTC", None),
        ("23000101T000000Z.wav", None, None),
        ("99991231_235959.wav", "America/New_York", None),
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


@pytest.mark.parametrize("year", ["0001", "1904", "1970", "2300", "9999"])
@pytest.mark.parametrize("origin", ["GUANO", "AudioMoth comment", "bext", "date"])
def test_an_impossible_date_is_not_believed_wherever_it_stands(tmp_path, year, origin):
    path, texts = write(tmp_path / "x.wav"), {}
    match origin:
        case "GUANO":
            add_chunk(path, b"guan", f"Timestamp: {year}-01-01T00:00:13Z\n".encode())
        case "AudioMoth comment":
            texts["comment"] = f"Recorded at 00:00:13 01/01/{year} (UTC) by AudioMoth"
        case "bext":
            add_chunk(path, b"bext", bext(f"{year}-01-01", "00:00:13"))
        case _:
            texts["date"] = f"{year}-01-01T00:00:13"
    start = start_of(path, "America/New_York", **texts)
    assert start.utc_ns is None
    assert f"{year}-01-01 00:00:13" in str(start)
    assert "not between the years 1980 and 2100" in str(start)
    renamed = path.rename(tmp_path / "20210513T190000Z.wav")
    assert start_of(renamed, "UTC", **texts).utc_ns == at(2021, 5, 13, 19)


@pytest.mark.parametrize("offset", ["+15", "+5:99", "-13", "+3:07"])
def test_an_offset_that_no_place_uses_is_not_believed(tmp_path, offset):
    comment = f"Recorded at 03:00:00 13/05/2021 (UTC{offset}) by AudioMoth"
    start = start_of(write(tmp_path / "x.wav"), comment=comment)
    assert start.utc_ns is None
    assert "no place uses" in str(start)


@pytest.mark.parametrize("form", ["odd", "rf64", "data 0", "data half", "data unknown"])
def test_guano_is_read_behind_the_sound_whatever_the_header_states(tmp_path, form):
    path = tmp_path / "x.wav"
    body = b"GUANO|Version: 1.0\nTimestamp: 2021-05-13T19:00:00+02:00\n\0"
    chunk = b"guan" + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    n_bytes = 7999 if form == "odd" else 8000
    sound = bytes(np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8))
    bits = 8 if form == "odd" else 16
    fmt = b"fmt " + struct.pack(
        "<IHHIIHH", 16, 1, 1, 8000, 1000 * bits, bits // 8, bits
    )
    size = {"data 0": 0, "data half": 4000, "data unknown": 0xFFFFFFFF}.get(form)
    head = b"RIFF\0\0\0\0WAVE"
    if form == "rf64":
        size = 0xFFFFFFFF
        head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack(
            "<IQQQI", 28, 0, n_bytes, n_bytes // 2, 0
        )
    data = b"data" + struct.pack("<I", n_bytes if size is None else size)
    path.write_bytes(head + fmt + data + sound + chunk)
    assert start_of(path).utc_ns == at(2021, 5, 13, 17)


@pytest.mark.parametrize(
    ("lines", "rate"),
    [
        ("TE: 10\nSamplerate: 80000", 80_000),
        ("TE:10", 80_000),
        ("TE: 10\nSamplerate: 8000", 8000),  # the header has the true rate already
        ("TE: 1\nSamplerate: 8000", 8000),
        ("TE: ten", 8000),
    ],
)
def test_time_expansion_counts_in_the_rate(tmp_path, lines, rate):
    path = write(tmp_path / "x.wav")
    add_chunk(path, b"guan", f"GUANO|Version: 1.0\n{lines}\n".encode())
    source = plugin.build(
        plugin.options(path=str(path)), BuildContext(ManualClock(), "run")
    )
    source.open()
    assert source.info.sample_rate == rate
    assert len(source.notices) == (rate != 8000)
    assert all("time-expanded by 10" in notice for notice in source.notices)
    source.close()


@pytest.mark.parametrize("zone", ["+25:00", "-14:30", "+02:75", "UTC+99"])
def test_an_impossible_offset_is_refused_in_one_sentence(zone):
    with pytest.raises(ValueError, match="is no time zone: offsets lie between"):
        zone_of(zone)


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
    assert list(source.describe()) == source.notices
    nameless = write(tmp_path / "song.wav")
    silent = plugin.build(plugin.options(path=str(nameless)), context)
    assert list(silent.describe()) == [
        f"'{nameless}' says nowhere when it began: its events have no UTC (give "
        "start_utc, or rename it like 20260501_040000Z.wav)"
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

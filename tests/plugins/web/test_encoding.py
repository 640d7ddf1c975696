"""Messages of the page: bytes of frames, gathered columns, joined rows of traces."""

import json
import math

import numpy as np
import pytest
from network.browsers import Columns

from neurovocal.engine.contracts.types import Frames, Surprise, Synthesis, Trace
from neurovocal.plugins.web.encoding import (
    PERIOD_S,
    ColumnGatherer,
    FrameFormat,
    FrameScale,
    TraceReducer,
    event_prefix,
    message_text,
    quantized,
)

RATE = 32_000


def frames(first, values):
    return Frames(first, 128, 256, np.asarray(values, np.float32))


def gatherer(kind="frames", **scale):
    return ColumnGatherer("s0", kind, "cage", FrameFormat(FrameScale(**scale)))


def only(batches):
    (batch,) = batches
    columns = Columns(batch.data)
    assert batch.n_columns == len(columns.values)
    return columns


def test_bytes_span_the_range_and_hold_every_value_within_half_a_step():
    values = np.linspace(-0.2, 1.2, 1000, dtype=np.float32)[None]
    levels = quantized(values, 0.0, 1.0)
    assert levels.dtype == np.uint8
    assert (levels.min(), levels.max()) == (0, 255)
    inside = (values >= 0) & (values <= 1)
    assert np.abs(levels[inside] / 255 - values[inside]).max() <= 0.5 / 255 + 1e-6


def test_values_that_are_no_numbers_are_silence_or_the_ends_of_the_range():
    values = np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32)
    assert quantized(values, 0.0, 1.0).tolist() == [[0, 0, 255, 128]]


def test_header_tells_all_that_a_browser_needs():
    columns = only(gatherer(low=0.0, high=1.0).add(frames(7, [[0, 1]]), "r", RATE, 0.0))
    assert columns.header == {
        "station": "s0",
        "kind": "frames",
        "stream": "cage",
        "run": "r",
        "first": 7,
        "hop_length": 128,
        "frame_length": 256,
        "sample_rate": RATE,
        "dtype": "u1",
        "shape": [1, 2],
        "low": 0.0,
        "high": 1.0,
        "unit": "",
    }
    assert columns.values.tolist() == [[0, 255]]


@pytest.mark.parametrize("stream", ["a", "ab", "abc", "abcd", "é/<b>"])
def test_values_begin_at_a_multiple_of_four_bytes(stream):
    kept = ColumnGatherer("s0", "surprise", stream, FrameFormat())
    (batch,) = kept.add(Surprise(0, 128, np.ones(3, np.float32)), "r", RATE, 0.0)
    assert len(batch.data) % 4 == 0
    assert Columns(batch.data).values.tolist() == [1, 1, 1]


def test_columns_are_gathered_until_their_time_has_come():
    kept, rows = gatherer(low=0.0, high=1.0), np.zeros((8, 2))
    period_s = PERIOD_S["frames"]
    assert len(kept.add(frames(0, rows), "r", RATE, 0.0)) == 1
    assert kept.add(frames(8, rows), "r", RATE, period_s / 3) == []
    assert kept.flush_due(period_s / 2) == []
    columns = only(kept.add(frames(16, rows), "r", RATE, period_s))
    assert (columns.first, columns.stop) == (8, 24)
    assert kept.flush_due(9.0) == []


def test_all_kinds_of_a_stream_together_have_thirty_messages_a_second_at_most():
    assert sum(1 / period_s for period_s in PERIOD_S.values()) <= 30
    kept = {kind: gatherer(kind) for kind in PERIOD_S}
    sent = 0
    for step in range(1000):  # ten seconds, a message of each kind every 10 ms
        now_s, row = step / 100, np.zeros((1, 4), np.float32)
        for kind, event in (
            ("frames", frames(step, row)),
            ("synthesis", Synthesis(step, 128, row, "free", "m")),
            ("surprise", Surprise(step, 128, row[:, 0])),
            ("trace", Trace(step, 128, 256, row, "dB")),
        ):
            sent += len(kept[kind].add(event, "r", RATE, now_s))
    assert sent <= 30 * 10 + len(PERIOD_S)


def test_columns_after_a_hole_or_of_another_run_begin_another_message():
    kept, rows = gatherer(low=0.0, high=1.0), np.zeros((2, 2))
    kept.add(frames(0, rows), "r", RATE, 0.0)
    assert kept.add(frames(2, rows), "r", RATE, 0.001) == []
    assert only(kept.add(frames(9, rows), "r", RATE, 0.002)).stop == 4
    assert only(kept.add(frames(0, rows), "other", RATE, 0.003)).first == 9
    assert only(kept.flush(1.0)).header["run"] == "other"


def test_power_is_shown_in_decibels_below_its_largest_value():
    kept = gatherer(scale="linear")
    columns = only(kept.add(frames(0, [[1e-3, 1.0, 0.0]]), "r", RATE, 0.0))
    low, high = columns.header["low"], columns.header["high"]
    assert columns.header["unit"] == "dB"
    assert (low, high) == (pytest.approx(-90), pytest.approx(0))
    shown_db = low + columns.values[0] * (high - low) / 255
    assert shown_db[:2] == pytest.approx([-30, 0], abs=0.2)
    assert columns.values[0, 2] == 0


def test_logarithm_of_power_is_shown_in_decibels():
    columns = only(gatherer(scale="log").add(frames(0, [[-5.0, -1.0]]), "r", RATE, 0.0))
    assert columns.header["high"] == pytest.approx(-10)
    assert columns.header["unit"] == "dB"


def test_a_loud_click_is_forgotten_after_a_while():
    form = FrameFormat(FrameScale("log"))
    form.update(np.array([[20.0]], np.float32), 0.1)
    for _ in range(100):
        low, high = form.update(np.array([[-40.0]], np.float32), 1.0)
    assert high == pytest.approx(-40, abs=3)
    assert high - low == pytest.approx(90)


def test_frames_and_synthesis_share_one_range():
    form = FrameFormat(FrameScale("log"))
    heard = ColumnGatherer("s0", "frames", "cage", form)
    made = ColumnGatherer("s0", "synthesis", "cage", form)
    loud = only(heard.add(frames(0, [[0.0]]), "r", RATE, 0.0))
    event = Synthesis(1, 128, np.full((1, 1), -2.0, np.float32), "free", "m")
    quiet = only(made.add(event, "r", RATE, 0.0))
    assert quiet.header["high"] == pytest.approx(loud.header["high"], abs=0.1)
    assert quiet.header["frame_length"] == 256


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"frames": 3},
        {"frames": {"scale": 4, "range": "ab"}},
        {"frames": {"range": [1, 0]}},
        {"frames": {"range": [None, 1]}},
    ],
)
def test_stats_without_or_with_a_malformed_scale_tell_nothing(values):
    assert FrameScale.of_stats(values) == FrameScale()


def test_scale_of_stats():
    stats = {"frames": {"scale": "scaled", "range": [0, 1]}}
    assert FrameScale.of_stats(stats) == FrameScale("scaled", 0.0, 1.0)


def test_rows_of_a_trace_are_joined_to_about_one_per_frame_on_one_grid():
    reducer = TraceReducer()
    rows = np.zeros((40, 4), np.float32)
    rows[:, 0] = np.arange(40)
    rows[:, 3] = -np.arange(40)
    parts = [reducer.reduce(Trace(3, 16, 32, rows[:20], "dB"), 128)]
    parts.append(reducer.reduce(Trace(23, 16, 32, rows[20:], "dB"), 128))
    first, second = parts
    # Rows 3 to 7 belong to a group whose beginning is not known.
    assert (first.first, first.hop_length, len(first.values)) == (1, 128, 1)
    assert first.values[0, 0] == 12  # row 15, the largest of rows 8 to 15
    assert first.values[0, 3] == -12
    assert second.first == 2
    assert second.values[:, 0].tolist() == [20, 28, 36]
    # The hop in the middle of each joined row is that of its rows.
    assert first.frame_length == 32 - 16 + 128


def test_rows_that_are_not_numbers_do_not_hide_those_that_are():
    rows = np.full((8, 4), np.nan, np.float32)
    rows[3, 0] = 5
    joined = TraceReducer().reduce(Trace(0, 16, 32, rows, "dB"), 128)
    assert joined.values[0, 0] == 5
    assert math.isnan(joined.values[0, 3])


def test_event_message_is_the_header_as_it_is():
    header = '{"kind":"label","utc_ns":1740824102560000001,"unit":"<b>"}'
    text = event_prefix('s"0') + header + "}"
    message = json.loads(text)
    assert message["station"] == 's"0'
    assert message["header"]["utc_ns"] == 1740824102560000001
    assert header in text
    assert json.loads(message_text("dropped", columns=3)) == {
        "type": "dropped",
        "columns": 3,
    }

"""Hub: the last minute for late viewers, and bounded queues for slow ones."""

import asyncio
import json

import numpy as np
import pytest
from network.browsers import Columns

from neurovocal.engine.contracts.types import Frames
from neurovocal.plugins.web import viewers
from neurovocal.plugins.web.encoding import FrameScale, Station
from neurovocal.plugins.web.viewers import Hub, Viewer

RATE = 32_000


class Time:
    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def hub(time):
    return Hub([Station(id="s0", name="demo")], time)


@pytest.fixture
def viewer():
    loop = asyncio.new_event_loop()
    yield Viewer(loop)
    loop.close()


def add_label(hub, seq, **more):
    header = json.dumps({"kind": "label", "seq": seq})
    hub.add_event("s0", "label", "cage", "r", seq, header, **more)


def add_frames(hub, first, n_frames=10, n_bins=4):
    values = np.zeros((n_frames, n_bins), np.float32)
    hub.add_columns("s0", "cage", "r", RATE, Frames(first, 128, 256, values))


def taken(viewer):
    """All messages that wait: sequence numbers of labels, first frames of columns."""
    found = []
    while (message := viewer.take()) is not None:
        if isinstance(message, str):
            found.append(json.loads(message)["header"]["seq"])
        else:
            found.append(("frames", Columns(message).first))
    return found


def test_late_viewer_gets_the_last_minute_in_order(hub, viewer, time):
    for seq in range(5):
        add_label(hub, seq)
        add_frames(hub, 10 * seq)
        time.s += 30.0
    time.s -= 30.0  # at the fifth
    hub.attach(viewer)
    assert taken(viewer) == [2, ("frames", 20), 3, 4]


def test_columns_of_the_last_minute_come_in_few_messages(hub, viewer, time):
    for number in range(300):
        add_frames(hub, 10 * number)
        time.s += 0.1
    add_frames(hub, 5000)  # after a hole
    hub.attach(viewer)
    found = [Columns(viewer.take()) for _ in range(4)]
    assert viewer.take() is None
    assert [(one.first, one.stop) for one in found] == [
        (0, 1000),
        (1000, 2000),
        (2000, 3000),
        (5000, 5010),
    ]


def test_first_frames_wait_for_the_meaning_of_their_values(viewer, time):
    hub = Hub([Station(id="s0", name="demo")], time, scale_wait_s=1.5)
    hub.attach(viewer)
    add_frames(hub, 0)
    time.s += 1.0
    hub.flush_columns()
    assert viewer.take() is None
    hub.set_scale("s0", "cage", FrameScale("linear", 0.0, 1.0))
    hub.flush_columns()
    columns = Columns(viewer.take())
    assert (columns.first, columns.header["low"], columns.header["high"]) == (0, 0, 1)


def test_frames_without_a_stated_meaning_wait_no_longer_than_that(viewer, time):
    hub = Hub([Station(id="s0", name="demo")], time, scale_wait_s=1.5)
    hub.attach(viewer)
    add_frames(hub, 0)
    time.s += 1.5
    hub.flush_columns()
    assert Columns(viewer.take()).first == 0


def test_nothing_is_sent_twice_or_missed_around_the_arrival(hub, viewer):
    add_label(hub, 0)
    hub.attach(viewer)
    add_label(hub, 1)
    assert taken(viewer) == [0, 1]


def test_late_viewer_gets_the_newest_state_of_each_stage_however_old(hub, viewer, time):
    add_label(hub, 0, state="source")
    add_label(hub, 1, state="source")
    add_label(hub, 2, state="lane")
    time.s += 500
    add_label(hub, 3, state="lane")
    hub.attach(viewer)
    assert taken(viewer) == [1, 3]


def test_events_overtake_columns_that_wait(hub, viewer):
    hub.attach(viewer)
    add_frames(hub, 0)
    add_label(hub, 0)
    assert taken(viewer) == [0, ("frames", 0)]


def test_oldest_columns_of_a_slow_viewer_are_dropped_and_counted(
    hub, viewer, time, monkeypatch
):
    monkeypatch.setattr(viewers, "_QUEUED_COLUMN_BYTES", 3000)
    hub.attach(viewer)
    for number in range(20):
        add_frames(hub, 10 * number, n_bins=100)
        add_label(hub, number)
        time.s += 1.0
    found = taken(viewer)
    labels = [one for one in found if isinstance(one, int)]
    columns = [first for one in found if not isinstance(one, int) for first in one[1:]]
    assert labels == list(range(20))
    assert columns == [180, 190], "the newest stay"
    assert viewer.dropped == 180


def test_viewer_that_reads_no_events_is_lost_and_holds_nothing(
    hub, viewer, monkeypatch
):
    monkeypatch.setattr(viewers, "_MOST_QUEUED_EVENTS", 100)
    hub.attach(viewer)
    for seq in range(101):
        add_label(hub, seq)
    assert viewer.is_lost
    assert viewer.take() is None


def test_a_lost_viewer_costs_the_others_nothing(hub, viewer, monkeypatch):
    monkeypatch.setattr(viewers, "_MOST_QUEUED_EVENTS", 100)
    loop = asyncio.new_event_loop()
    quick = Viewer(loop)
    hub.attach(viewer)
    hub.attach(quick)
    found = []
    for seq in range(300):
        add_label(hub, seq)
        found += taken(quick)
    assert viewer.is_lost
    assert not quick.is_lost
    assert found == list(range(300))
    loop.close()


def test_hidden_tab_gets_events_alone(hub, viewer):
    hub.attach(viewer)
    viewer.wants_columns = False
    add_frames(hub, 0)
    add_label(hub, 0)
    assert taken(viewer) == [0]
    assert viewer.dropped == 0


def test_memory_of_a_hub_is_bounded(hub, time, monkeypatch):
    monkeypatch.setattr(viewers, "_KEPT_COLUMN_BYTES", 10_000)
    monkeypatch.setattr(viewers, "_KEPT_EVENT_BYTES", 20_000)
    monkeypatch.setattr(viewers, "_MOST_STREAMS", 10)
    for number in range(1000):
        values = np.zeros((10, 100), np.float32)
        event = Frames(10 * number, 128, 256, values)
        hub.add_columns("s0", f"file {number}", "r", RATE, event)
        add_label(hub, number)
        time.s += 0.01
    assert sum(len(one.batch.data) for one in hub._columns) <= 10_000
    assert sum(len(one.text) for one in hub._events) <= 20_000
    assert sum(len(one.text) for one in hub._recent) <= 20_000
    assert len(hub._streams) == 10


def test_columns_that_wait_are_sent_when_their_time_has_come(hub, viewer, time):
    hub.attach(viewer)
    add_frames(hub, 0)
    add_frames(hub, 10)
    hub.flush_columns()
    assert taken(viewer) == [("frames", 0)]
    time.s += 1.0
    hub.flush_columns()
    assert taken(viewer) == [("frames", 10)]


def test_change_of_a_station_is_told_once(hub, viewer):
    hub.attach(viewer)
    gone = Station(id="s0", name="demo", connected=False, detail="no message yet")
    hub.update_station(gone)
    hub.update_station(gone)
    told = json.loads(viewer.take())
    assert told["type"] == "station"
    assert told["station"]["detail"] == "no message yet"
    assert viewer.take() is None


def test_events_of_the_past_leave_out_what_is_repeated_each_second(hub):
    add_label(hub, 0)
    hub.add_event("s0", "stats", "cage", "r", 0, "{}")
    hub.add_event("s0", "anchor", "cage", "r", 0, "{}")
    add_label(hub, 1)
    newest_first = list(hub.events_before(None))
    assert [event.seq for event in newest_first] == [1, 0]
    assert [event.header for event in newest_first][1] == '{"kind": "label", "seq": 0}'
    assert [e.seq for e in hub.events_before(newest_first[0].ticket)] == [0]


def test_rate_of_a_stream_is_that_of_its_events(hub):
    assert hub.sample_rate("s0", "cage") == 0
    add_label(hub, 0, sample_rate=RATE)
    add_label(hub, 1)
    assert hub.sample_rate("s0", "cage") == RATE

"""LSL sink: a real inlet gets markers and values, with the times of their instants."""

import numpy as np
import pylsl
import pytest
from processes.waiting import PATIENCE_S, until
from stages.journals import INFO

from neurovocal.engine.contracts.clock import NS, ManualClock, SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    Label,
    Message,
    Offset,
    Onset,
    Stats,
    StreamInfo,
    Surprise,
)
from neurovocal.engine.testing import check_sink
from neurovocal.plugins.sinks.integrations.lsl import LslOptions, plugin

# Streams of this machine alone, and nothing on the terminal.
pylsl.set_config_content("[multicast]\nResolveScope = machine\n[log]\nlevel = -3\n")

START_NS = 1_700_000_000 * NS


def make(station, **options):
    checked = LslOptions(allow_remote=True, **options)
    context = BuildContext(ManualClock(START_NS), "run-1", stream=station)
    return plugin.build(checked, context)


def message(event, ago_s=0.0, info=INFO):
    return Message(info, event, 0, 9, START_NS - round(ago_s * NS))


def label(unit, ago_s=0.0, status="final"):
    return message(Label(0, 0, 320, unit, 0.9, status, "m"), ago_s)


STATS = message(Stats({"level_db": -42.5}))


def connected(station, kind, stream="aviary-3"):
    """Return an inlet that is connected to an outlet."""
    source = f"neurovocal/{station}/{stream}/{kind}"
    (found,) = pylsl.resolve_byprop("source_id", source, 1, PATIENCE_S)
    inlet = pylsl.StreamInlet(found)
    inlet.open_stream(PATIENCE_S)
    return inlet


def test_is_installed_and_keeps_the_contract_of_sinks():
    assert Registry().get("sink", "lsl") is plugin
    check_sink(lambda: make("contract"), [STATS, label("a")])


def test_labels_are_markers_at_their_onset():
    sink = make("markers", marks=["label", "onset", "offset"])
    sink.open()
    sink.write(STATS)  # makes the outlet, before there is anything to send
    inlet = connected("markers", "markers")
    assert inlet.info().type() == "Markers"
    assert inlet.info().name() == "NeuroVocal markers aviary-3 markers"
    until(lambda: sink.stats()["read"] == 1)
    now_s = pylsl.local_clock()
    sink.write(message(Onset(0, 0, 1.0), ago_s=3.0))
    sink.write(label("x", 3.0, "provisional"))
    sink.write(label("b", 3.0))
    sink.write(message(Offset(0, 0, 320, False), ago_s=2.5))
    samples = [inlet.pull_sample(PATIENCE_S) for _ in range(3)]
    sink.close()
    assert [text for (text,), _ in samples] == ["onset", "b", "offset"]
    ago_s = [now_s - time_s for _, time_s in samples]
    # The times of the calls themselves lie between.
    assert ago_s == pytest.approx([3.0, 3.0, 2.5], abs=1.0)
    assert samples[2][1] - samples[1][1] == pytest.approx(0.5, abs=0.4)


def test_level_and_surprise_are_streams_of_numbers():
    sink = make("numbers", streams=["level", "surprise"])
    assert sink.wants == {"stats", "surprise"}
    sink.open()
    sink.write(STATS)
    level, surprise = (connected("numbers", kind) for kind in ("level", "surprise"))
    until(lambda: sink.stats()["read"] == 2)
    sink.write(STATS)
    values = np.array([1.0, np.nan, 3.0, 4.0], np.float32)
    sink.write(message(Surprise(0, 320, values), ago_s=1.0))
    assert level.pull_sample(PATIENCE_S)[0] == [-42.5]
    found = [surprise.pull_sample(PATIENCE_S) for _ in range(3)]
    assert [value for (value,), _ in found] == [1.0, 3.0, 4.0]
    times = [time_s for _, time_s in found]
    # Frames of 10 ms; the one without a value has no sample.
    assert np.diff(times) == pytest.approx([0.02, 0.01])
    sink.close()


def test_an_inlet_finds_the_stream_of_a_restarted_engine_again():
    sink = make("restart")
    sink.open()
    sink.write(STATS)
    inlet = connected("restart", "markers")
    until(lambda: sink.stats()["read"] == 1)
    sink.write(label("before"))
    assert inlet.pull_sample(PATIENCE_S)[0] == ["before"]
    sink.close()
    again = make("restart")
    again.open()
    again.write(STATS)
    until(lambda: again.stats()["read"] == 1 or inlet.pull_sample(0.0)[0])
    again.write(label("after"))
    assert inlet.pull_sample(PATIENCE_S)[0] == ["after"]
    again.close()


def test_outlets_are_bounded_and_what_has_none_is_counted():
    sink = make("many")
    sink.open()
    for number in range(70):
        event = Label(0, 0, 320, "a", 0.9, "final", "m")
        sink.write(message(event, info=StreamInfo(f"{number}.wav", 32000)))
    stats = sink.stats()
    sink.close()
    assert (stats["outlets"], stats["pushed"], stats["left_out"]) == (64, 64, 6)


def test_mistakes_are_found_before_anything_listens():
    def problems(events=None, **options):
        context = BuildContext(SystemClock(), "r", events=events)
        return list(plugin.check(LslOptions(**options), context))

    assert problems(allow_remote=True) == []
    assert "allow_remote: true" in problems()[0]
    assert "sends no gap" in problems(events=("gap",), allow_remote=True)[0]
    sink = plugin.build(LslOptions(), BuildContext(SystemClock(), "r"))
    with pytest.raises(ConfigError, match="allow_remote"):
        sink.open()

"""Test doubles of all stages, and runners of scripted audio made of them."""

import numpy as np
import yaml

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    BULK_KINDS,
    Anchor,
    Block,
    Frames,
    Gap,
    Label,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.testing import canonical

RATE = 1000
INFO = StreamInfo("cage", RATE)
QUANTUM = 32  # samples: two frames of 16
EPOCH = 1_700_000_000 * NS
# Room for all messages, so that a busy machine drops none.
LARGE_QUEUE = {"events": 100_000, "bulk": 100_000}


class ThresholdDetector:
    """Detector of runs of samples above one half."""

    consumes = "samples"
    latency = 0

    def __init__(self):
        self.reset()

    def reset(self):
        self.segment, self.onset, self.stop = 0, None, 0

    def process(self, item):
        if isinstance(item, Gap):
            yield from self.flush()
            return
        for sample, value in enumerate(item.samples[:, 0], item.start):
            if value > 0.5 and self.onset is None:
                self.onset = sample
                yield Onset(self.segment, sample, float(value))
            elif value <= 0.5 and self.onset is not None:
                yield self._close(sample, truncated=False)
            self.stop = sample + 1

    def flush(self):
        if self.onset is not None:
            yield self._close(self.stop, truncated=True)

    def _close(self, sample, *, truncated):
        mark = Offset(self.segment, self.onset, sample, truncated)
        self.segment, self.onset = self.segment + 1, None
        return mark


class FrameEvery16:
    """Front end with frames of one bin: the largest of each 16 samples."""

    n_bins, hop_length, frame_length, latency = 1, 16, 16, 0

    def process(self, item):
        if isinstance(item, Gap) or len(item.samples) < 16:
            return
        n_frames = len(item.samples) // 16
        values = item.samples[: n_frames * 16, 0].reshape(n_frames, 16).max(axis=1)
        yield Frames(item.start // 16, 16, 16, values[:, None])

    def flush(self):
        return ()

    def reset(self):
        pass


class SegmentLabeller:
    """Model that labels each segment at its offset."""

    latency = 0

    def process(self, item):
        if isinstance(item, Offset):
            yield Label(item.segment, item.onset, item.sample, "a", 1.0, "final", "n")

    def flush(self):
        return ()

    def reset(self):
        pass


class FailingModel(SegmentLabeller):
    """Model that raises for all frames and labels nothing."""

    def process(self, item):
        if isinstance(item, Frames):
            raise RuntimeError("no frames for me")
        return ()


STAGES = {
    "gate": ThresholdDetector,
    "frames": FrameEvery16,
    "namer": SegmentLabeller,
    "clumsy": FailingModel,
}
KIND_OF_STAGE = {"gate": "detector", "frames": "features"}


def make_runner(
    source,
    *sinks,
    clock=None,
    models=(),
    detector="gate",
    source_policy=None,
    sink=(),
    observers=(),
    **more,
):
    """Return a runner with one lane per source and sinks that all lanes share.

    Parameters
    ----------
    source : ScriptedSource or list of them
        The sources.
    models : sequence of str or dict
        Names from `STAGES`, or whole entries of a configuration.
    detector : str
        Name from `STAGES`, or of an installed detector.
    source_policy : str, optional
        Policy (`on_error`) of the sources.
    sink : dict, or list of dict
        More keys for all sinks, or for each; the default queues drop nothing.
    more
        More keys of the configuration.
    """
    sources = source if isinstance(source, list) else [source]
    extra = {}
    for name, stage in STAGES.items():
        kind = KIND_OF_STAGE.get(name, "model")
        extra[kind, name] = _plugin(kind, stage)
    for kind, things in (("source", sources), ("sink", sinks)):
        for index, thing in enumerate(things):
            options = getattr(thing, "options", Options)
            plugin = _plugin(kind, lambda t=thing: t, options)
            extra[kind, f"{kind}{index}"] = plugin
    lanes = [
        {
            "name": f"lane{index}",
            "source": {"plugin": f"source{index}", "on_error": source_policy},
            "features": {"plugin": "frames"},
            "detector": {"plugin": detector},
            "models": [{"plugin": m} if isinstance(m, str) else m for m in models],
        }
        for index in range(len(sources))
    ]
    keys = [dict(sink)] * len(sinks) if isinstance(sink, dict | tuple) else sink
    shared = [
        {"plugin": f"sink{i}", "queue": LARGE_QUEUE, **own}
        for i, own in enumerate(keys)
    ]
    data = {"version": 1, "tile": 2, "lanes": lanes, "sinks": shared, **more}
    located = parse_located(yaml.safe_dump(data), "x.yaml")
    context = BuildContext(clock=clock or ManualClock(EPOCH), run="test")
    plan = make_plan(parse_config(located), located, Registry(extra), context)
    return Runner(plan, observers)


def _plugin(kind, make, options=Options):
    return Plugin(kind, options, lambda options, context: make(), "a test's")


def audio(text, start=0, channels=1):
    """Return a block of ten samples per letter, loud for '#'."""
    values = np.repeat([0.9 if c == "#" else 0.1 for c in text], 10)
    samples = np.repeat(values.astype(np.float32)[:, None], channels, axis=1)
    return Block(start, samples)


def then_wait(items, done):
    """Yield items, then None until `done` is set, as a live source does."""
    yield from items
    while not done.wait(0.01):
        yield None


def many(n_blocks, text="..##."):
    position = 0
    for _ in range(n_blocks):
        block = audio(text, position)
        position = block.stop
        yield block


def outline(sink):
    return [
        (m.kind, m.info.stream, m.seq, m.at, canonical(m.event)) for m in sink.messages
    ]


def check_seq(sink):
    """Check that sequence numbers have no holes in any kind that is not bulky."""
    counts = {}
    for message in sink.messages:
        key = message.kind, message.info.stream
        if message.kind in BULK_KINDS:
            continue  # a machine that stands still may fill their queue
        if isinstance(message.event, Anchor) and message.seq < counts.get(key, 0):
            continue  # repeated for late subscribers
        assert message.seq == counts.get(key, 0), key
        counts[key] = message.seq + 1


class CallLog:
    """Wraps sources and sinks and lists their method calls in order."""

    def __init__(self):
        self.calls = []

    def wrap(self, name, thing, *, fails=()):
        for method in ("open", "read", "write", "flush", "close"):
            original = getattr(thing, method, None)
            if original is not None:
                setattr(thing, method, self._logged(name, method, original, fails))
        return thing

    def _logged(self, name, method, original, fails):
        def call(*args):
            line = f"{name}.{method}"
            if line not in self.calls:
                self.calls.append(line)
            if method in fails:
                raise DeviceError(f"{name} cannot {method}: try another")
            return original(*args)

        return call


def flagging(write, flag, kind):
    def wrapper(message):
        write(message)
        if isinstance(message.event, kind):
            flag.set()

    return wrapper

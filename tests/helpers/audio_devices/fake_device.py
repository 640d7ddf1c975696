"""Input device with a callback that a test calls, in place of PortAudio's."""

from types import SimpleNamespace

import numpy as np

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.plugins.sources import microphone as source_microphone
from neurovocal.plugins.sources.microphone import plugin

RATE = 32_000


def make(clock=None, **options):
    """Build a microphone source."""
    context = BuildContext(clock or ManualClock(), "run", stream="aviary")
    return plugin.build(plugin.options(**options), context)


class FakeDevice:
    """Input device that calls the callback of the source in `deliver`."""

    def __init__(self, monkeypatch, clock, channels=2):
        self.clock = clock
        self.channels = channels
        self.latency_high_ms = 600.0
        self.own_rate = RATE
        self.refused = ()
        self.position = 0
        self.closed = False
        monkeypatch.setattr(source_microphone, "find_device", self._find)
        monkeypatch.setattr(source_microphone, "find_again", self._find)
        monkeypatch.setattr(source_microphone, "open_input", self._open)

    def _find(self, wanted):
        return {
            "index": 0,
            "name": "fake",
            "channels": self.channels,
            "sample_rate": self.own_rate,
            "latency_high_ms": self.latency_high_ms,
        }

    def _open(self, device, sample_rate, channels, **options):
        self.callback, self.finished = options["callback"], options["finished_callback"]
        if sample_rate in self.refused:
            raise DeviceError(f"device 'fake' does not take {sample_rate} Hz")
        self.opened = channels
        # The source drops the first block, whose age is unknown.
        self.position -= 16
        self.deliver(16, paced=False)
        return self

    def close(self):
        self.closed = True
        self.finished()

    def deliver(self, count, *, age_s=None, overflow=False, adc=True, paced=True):
        """Call the callback with `count` samples, in their time or at once."""
        self.clock.advance(count / RATE if paced else 0)
        numbers = np.arange(self.position, self.position + count, dtype=np.float32)
        samples = np.stack([numbers, -numbers], axis=1)[:, : self.opened] / 2**20
        self.position += count
        now = self.clock.monotonic_ns() / NS + 1000
        age = count / RATE if age_s is None else age_s
        time = SimpleNamespace(
            currentTime=now, inputBufferAdcTime=now - age if adc else 0.0
        )
        status = SimpleNamespace(input_overflow=overflow)
        self.callback(samples, count, time, status)


def items_of(source):
    """Read until nothing more has arrived."""
    items = []
    while (item := source.read(0)) is not None:
        items.append(item)
    return items

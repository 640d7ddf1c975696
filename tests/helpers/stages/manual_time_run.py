"""Whole runs with real sinks on a clock that the test advances."""

from dataclasses import replace
from threading import Event as Flag

import yaml
from processes.waiting import until

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.runtime.runner import Runner

_STEP_S = 0.1


class ManualTimeRun:
    """Run of a configuration with a clock that stands at 0 s at the start.

    Parameters
    ----------
    data : dict
        The configuration.
    observers
        Sinks beside those of the configuration.

    Attributes
    ----------
    runner : Runner
        Can be stopped; `finish` runs it to its end.
    """

    def __init__(self, data, *observers):
        located = parse_located(yaml.safe_dump(data), "station.yaml")
        plan = plan_of(located)
        self._clock = ManualClock(autojump=False)
        context = replace(plan.context, clock=self._clock)
        self.runner = Runner(replace(plan, context=context), observers)
        self._ended = Flag()

    def start(self, background):
        """Run in another thread; return when every lane has read once.

        A source begins to count time at its first read.
        """
        self._result = background(self._run)
        until(lambda: self.runner.started or self._ended.is_set())
        read = [(lane, lane.progress) for lane in self.runner.lanes]
        until(
            lambda: (
                all(lane.progress > before for lane, before in read)
                or self._ended.is_set()
            )
        )

    def _run(self):
        try:
            return self.runner.run()
        finally:
            self._ended.set()

    def advance_to(self, seconds):
        """Advance the clock to `seconds` and wait until the lanes have read so far."""
        self._clock.advance(seconds - self._clock.monotonic_ns() / NS)
        lanes = self.runner.lanes
        until(lambda: all(lane.reader.seconds > seconds - _STEP_S for lane in lanes))

    def advance_until(self, condition):
        """Advance the clock until `condition()` is true."""
        until(lambda: self._clock.advance(_STEP_S) or condition())

    def finish(self):
        """Advance the clock until the run has ended; return its outcome."""
        self.advance_until(self._ended.is_set)
        return self._result()

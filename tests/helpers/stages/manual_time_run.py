"""Whole runs with real sinks whose time passes only when a test says so."""

from dataclasses import replace
from threading import Event as Flag

import yaml
from processes.waiting import until

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.runtime.runner import Runner

_STEP_S = 0.1


class PassingRun:
    """A run of a configuration; at its start it is 0 s, and stays so.

    Parameters
    ----------
    data : dict
        The configuration.
    observers
        Sinks beside those that are configured.

    Attributes
    ----------
    runner : Runner
        Stop it, or let its time pass to the end.
    """

    def __init__(self, data, *observers):
        located = parse_located(yaml.safe_dump(data), "station.yaml")
        plan = plan_of(parse_config(located), located)
        self._clock = ManualClock(autojump=False)
        context = replace(plan.context, clock=self._clock)
        self.runner = Runner(replace(plan, context=context), observers)
        self._ended = Flag()

    def begin(self, background):
        """Run in another thread, until all is open, started and waits for time.

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

    def pass_to(self, seconds):
        """It is so late, and what was to be heard by now has been."""
        self._clock.advance(seconds - self._clock.monotonic_ns() / NS)
        lanes = self.runner.lanes
        until(lambda: all(lane.reader.seconds > seconds - _STEP_S for lane in lanes))

    def pass_until(self, condition):
        """Time passes until something has come to be."""
        until(lambda: self._clock.advance(_STEP_S) or condition())

    def end(self):
        """Time passes until the run is over; its outcome."""
        self.pass_until(self._ended.is_set)
        return self._result()

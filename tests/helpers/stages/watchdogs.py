"""A watchdog on a manual clock."""

from processes.waiting import until

from neurovocal.engine.runtime.systemd import ServiceManager
from neurovocal.engine.runtime.watchdog import Watchdog


def looker(runner, clock, **keys):
    """Watchdog that checks on request, in place of the run's own."""
    until(lambda: runner.started)  # or the run would start this one
    runner.watchdog.stop()
    settings = {
        "hang_s": 30.0,
        "max_rss_mb": None,
        "give_up": runner._give_up,
        "manager": ServiceManager(None),
    }
    runner.watchdog = Watchdog(
        runner.lanes, runner.sinks, clock, **{**settings, **keys}
    )
    return runner.watchdog


def pass_time(watchdog, clock, seconds, healthy):
    """Seconds, one look each, in all of which a healthy lane goes on reading."""
    (calls,) = [calls for name, calls in healthy.calls() if name == "source"]
    watchdog.check()
    for _ in range(seconds):
        before = calls.entered
        until(lambda before=before: calls.entered > before)
        clock.advance(1.0)
        watchdog.check()

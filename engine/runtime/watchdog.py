"""Watchdog: finds calls that do not return and memory that grows, and contains them.

A call into a plugin that hangs cannot be ended: threads cannot be killed. It can be
reported and isolated: a sink is replaced by a new one, a lane is given up.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Event as Flag
from threading import Thread

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.runtime.systemd import ServiceManager
from neurovocal.engine.runtime.workers.lanes.running import RunningLane
from neurovocal.engine.runtime.workers.sink_worker import SinkWorker
from neurovocal.engine.support.calls import Calls
from neurovocal.engine.support.process import ProcessUsage, process_usage

log = logging.getLogger("neurovocal")

_POLL_S = 0.25
_PING_NS = NS
# A process that was itself stopped or starved in between has not observed a hang.
_MOST_NS = NS


class Watchdog:
    """Checks all lanes and sinks of a run, four times a second.

    Parameters
    ----------
    lanes, sinks : sequence of RunningLane, of SinkWorker
        Workers whose calls are checked.
    clock : Clock
        Measures how long a call lasts.
    hang_s : float or None
        Seconds after which a call counts as hanging; None: however long it takes.
    max_rss_mb : float or None
        Resident memory in MiB that ends the run; None: no limit.
    give_up : callable
        ``give_up(sentence)`` ends the run in order, with a failure.
    manager : ServiceManager
        Gets a watchdog message each second as long as every lane makes progress.
    measure : callable
        Returns the resources that the process uses.

    Attributes
    ----------
    hung : dict of str to str
        Lanes that are given up, by name, with a sentence.
    """

    def __init__(
        self,
        lanes: Sequence[RunningLane],
        sinks: Sequence[SinkWorker],
        clock: Clock,
        *,
        hang_s: float | None,
        max_rss_mb: float | None,
        give_up: Callable[[str], None],
        manager: ServiceManager,
        measure: Callable[[], ProcessUsage] = process_usage,
    ) -> None:
        self._lanes = lanes
        self._sinks = sinks
        self._clock = clock
        self._hang_ns = None if hang_s is None else round(hang_s * NS)
        self._max_rss_mb = max_rss_mb
        self._give_up = give_up
        self._manager = manager
        self._measure = measure
        self._seen: dict[Calls, tuple[int, int]] = {}  # call's number, how long
        self._checked_ns = clock.monotonic_ns()
        self._passed_ns = 0  # since the check before, as far as it counts
        self._progress: dict[RunningLane, tuple[int, int]] = {}  # samples, since when
        self.hung: dict[str, str] = {}  # by lane: what does not return, a sentence
        self._reported_calls: dict[RunningLane, str] = {}
        self._next_ping_ns = 0
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name="nv-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread and tell the service manager that the run is ready."""
        self._manager.send_ready()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread: the run ends."""
        self._stopping.set()
        self._manager.send_stopping()
        if self._thread.ident is not None:
            self._thread.join(_POLL_S)

    def check(self) -> None:
        """Check all lanes and sinks once, and once a second memory and progress."""
        now = self._clock.monotonic_ns()
        self._passed_ns = min(now - self._checked_ns, _MOST_NS)
        self._checked_ns = now
        for lane in self._lanes:
            self._check_lane(lane)
        for sink in self._sinks:
            calls = sink.supervised.calls
            lasts_ns = self._lasts_ns(calls)
            if self._hang_ns is not None and lasts_ns >= self._hang_ns:
                sink.isolate(calls, lasts_ns / NS)
        if now >= self._next_ping_ns:
            self._next_ping_ns = now + _PING_NS
            self._check_memory()
            self._ping(now)

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            try:
                self.check()
            except Exception:
                log.exception("the watchdog failed and goes on")

    def _check_lane(self, lane: RunningLane) -> None:
        longest, call_name = 0, ""
        for name, calls in lane.calls():
            lasts_ns = self._lasts_ns(calls)
            if lasts_ns > longest:
                longest, call_name = lasts_ns, name
        if self._hang_ns is not None:
            hangs = longest >= self._hang_ns
            self._note_hang(lane, call_name if hangs else "", longest / NS)

    def _note_hang(self, lane: RunningLane, call_name: str, seconds: float) -> None:
        reported = self._reported_calls.get(lane, "")
        if call_name and not reported:
            self._reported_calls[lane] = call_name
            sentence = f"it has not returned for {seconds:.0f} s"
            self.hung[lane.name] = f"lane '{lane.name}': {call_name} hangs: {sentence}"
            log.error("%s", self.hung[lane.name])
            lane.note(call_name, "failed", sentence)
        elif reported and not call_name:
            del self.hung[lane.name], self._reported_calls[lane]
            log.warning("lane '%s': %s has returned", lane.name, reported)
            lane.note(reported, "healthy", "it has returned, and the lane goes on")

    def _lasts_ns(self, calls: Calls) -> int:
        """Return for how long the present call has been observed; 0 between calls."""
        # In this order: a call that ends meanwhile is seen as ended, never as long.
        entered, returned = calls.entered, calls.returned
        if entered <= returned:
            self._seen.pop(calls, None)
            return 0
        number, lasts_ns = self._seen.get(calls, (0, 0))
        lasts_ns = lasts_ns + self._passed_ns if number == entered else 0
        self._seen[calls] = (entered, lasts_ns)
        return lasts_ns

    def _check_memory(self) -> None:
        if self._max_rss_mb is None:
            return
        used = self._measure()
        if used.rss_mb <= self._max_rss_mb:
            return
        sentence = (
            f"the process holds {used.rss_mb:.0f} MiB, more than "
            f"supervise.max_rss_mb ({self._max_rss_mb:g}): it stops, "
            "so that it can be restarted"
        )
        self._max_rss_mb = None  # reported once
        log.error("%s", sentence)
        for lane in self._lanes:
            lane.note("process", "failed", sentence)
        self._give_up(sentence)

    def _ping(self, now: int) -> None:
        stuck = [lane.name for lane in self._lanes if not self._progresses(lane, now)]
        if stuck:
            self._manager.send_status(f"no progress: {', '.join(stuck)}")
            return
        ended = sum(lane.finished.is_set() for lane in self._lanes)
        seconds = sum(lane.reader.seconds for lane in self._lanes)
        number = len(self._lanes) - ended
        lanes = f"{number} lane{'' if number == 1 else 's'}"
        self._manager.send_alive(f"{lanes}, {seconds:.0f} s heard")

    def _progresses(self, lane: RunningLane, now: int) -> bool:
        """Return True if samples come, or if their absence is being dealt with."""
        progress = lane.progress
        before, since = self._progress.get(lane, (-1, now))
        ended = lane.finished.is_set() and lane.error is None
        if progress != before or ended or lane.reader.is_lost:
            self._progress[lane] = (progress, now)
            return True
        return now - since < (self._hang_ns or 30 * NS)

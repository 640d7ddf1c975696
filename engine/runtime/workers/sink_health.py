"""Health of the sinks of a lane, as changes of their states."""

from collections.abc import Iterator, Sequence

from neurovocal.engine.contracts.types import Health
from neurovocal.engine.runtime.workers.lanes.running import MessageTaker

_DOWN = ("restarting", "failed")


class SinkHealth:
    """Changes of the sinks' states between two calls, a second or so apart.

    A sink that is down cannot report it itself: its state is published to all sinks.

    Parameters
    ----------
    sinks : sequence of MessageTaker
        Sinks of one lane.
    """

    def __init__(self, sinks: Sequence[MessageTaker]) -> None:
        self._sinks = sinks
        self._states: dict[str, str] = {}
        self._dropped: dict[str, int] = {}
        self._failures: dict[str, int] = {}

    def changes(self) -> Iterator[Health]:
        """Yield a Health event for each sink with a changed state."""
        for sink in self._sinks:
            failed = self._has_failed(sink)
            now = self._state_of(sink, failed)
            before = self._states.get(sink.name, "healthy")
            if failed and now.state not in _DOWN and before not in _DOWN:
                before = "restarting"
                yield Health(
                    sink.name, "restarting", f"{sink.supervised.trouble}; it goes on"
                )
            self._states[sink.name] = now.state
            if now.state != before:
                yield now

    def _has_failed(self, sink: MessageTaker) -> bool:
        """Return True if it has failed since the last call; it may work again."""
        before = self._failures.get(sink.name, 0)
        self._failures[sink.name] = sink.supervised.failures
        return sink.supervised.failures != before

    def _state_of(self, sink: MessageTaker, failed: bool) -> Health:
        dropped = sink.mailbox.dropped.total()
        more = dropped - self._dropped.get(sink.name, 0)
        self._dropped[sink.name] = dropped
        trouble = sink.trouble
        if trouble is not None:
            state, sentence = trouble
            return Health(sink.name, state, f"{sentence}; {dropped} messages lost")
        if more and not failed:
            return Health(
                sink.name, "lossy", f"it cannot keep up: {dropped} messages lost"
            )
        return Health(
            sink.name, "healthy", f"it works again; {dropped} messages were lost"
        )

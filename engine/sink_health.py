"""Sinks that fail, lose messages or recover, as events that the others carry."""

from collections.abc import Iterator, Sequence

from neurovocal.engine.sink_worker import SinkWorker
from neurovocal.engine.types import Health

_DOWN = ("restarting", "failed")


class SinkHealth:
    """Notices changes between two looks, a second or so apart.

    A sink that is down cannot say so itself: its state is told to all others.

    Parameters
    ----------
    sinks : sequence of SinkWorker
        Those of one lane.
    """

    def __init__(self, sinks: Sequence[SinkWorker]) -> None:
        self._sinks = sinks
        self._states: dict[str, str] = {}
        self._dropped: dict[str, int] = {}
        self._failures: dict[str, int] = {}

    def changes(self) -> Iterator[Health]:
        """Health events for the sinks whose state is not what it was."""
        for sink in self._sinks:
            failed = self._has_failed(sink)
            now = self._look(sink, failed)
            before = self._states.get(sink.name, "healthy")
            if failed and now.state not in _DOWN and before not in _DOWN:
                before = "restarting"
                yield Health(
                    sink.name, "restarting", f"{sink.shell.trouble}; it goes on"
                )
            self._states[sink.name] = now.state
            if now.state != before:
                yield now

    def _has_failed(self, sink: SinkWorker) -> bool:
        """Whether it has failed since the last look; it may have recovered, too."""
        before = self._failures.get(sink.name, 0)
        self._failures[sink.name] = sink.shell.failures
        return sink.shell.failures != before

    def _look(self, sink: SinkWorker, failed: bool) -> Health:
        dropped = sink.mailbox.dropped.total()
        more = dropped - self._dropped.get(sink.name, 0)
        self._dropped[sink.name] = dropped
        if sink.trouble is not None:
            state, sentence = sink.trouble
            return Health(sink.name, state, f"{sentence}; {dropped} messages lost")
        if more and not failed:
            return Health(
                sink.name, "lossy", f"it cannot keep up: {dropped} messages lost"
            )
        return Health(
            sink.name, "healthy", f"it works again; {dropped} messages were lost"
        )

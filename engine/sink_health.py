"""Sinks that fail, lose messages or recover, as events that the others carry."""

from collections.abc import Iterator, Sequence

from neurovocal.engine.sink_worker import SinkWorker
from neurovocal.engine.types import Health


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

    def changes(self) -> Iterator[Health]:
        """Health events for the sinks whose state is not what it was."""
        for sink in self._sinks:
            now = self._look(sink)
            before = self._states.get(sink.name, "healthy")
            self._states[sink.name] = now.state
            if now.state != before:
                yield now

    def _look(self, sink: SinkWorker) -> Health:
        dropped = sink.mailbox.dropped.total()
        more = dropped - self._dropped.get(sink.name, 0)
        self._dropped[sink.name] = dropped
        if sink.trouble is not None:
            state, sentence = sink.trouble
            return Health(sink.name, state, f"{sentence}; {dropped} messages lost")
        if more:
            return Health(
                sink.name, "lossy", f"it cannot keep up: {dropped} messages lost"
            )
        return Health(
            sink.name, "healthy", f"it works again; {dropped} messages were lost"
        )

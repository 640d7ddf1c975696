"""Ends of streams on their way through the sinks."""

from collections.abc import Collection, Sequence
from threading import Lock

from neurovocal.engine.contracts.types import StreamEnd


class StreamCommit:
    """End of a stream on its way through the sinks of a lane.

    Parameters
    ----------
    end : StreamEnd or None
        Item of the source, if it had one.
    streams : sequence of str
        Names of the streams of all channels.
    sinks : collection of MessageTaker
        Those that have to commit.
    """

    def __init__(
        self,
        end: StreamEnd | None,
        streams: Sequence[str],
        sinks: Collection[object],
    ) -> None:
        self.end = end
        self.streams = streams
        self.kept = True
        self._waiting = set(sinks)
        self._lock = Lock()

    @property
    def is_done(self) -> bool:
        """Return True when every sink has committed, or has lost something."""
        return not self._waiting

    def done(self, sink: object, *, kept: bool) -> None:
        """Note that a sink has committed the stream, wholly or with losses."""
        with self._lock:
            self._waiting.discard(sink)
            self.kept &= kept

"""Optional protocols of sources and sinks for recordings that are read only once."""

from typing import Protocol, runtime_checkable

from neurovocal.engine.contracts.types import StreamEnd


@runtime_checkable
class AwaitsCommit(Protocol):
    """Source of recordings that count as finished when all sinks have kept them.

    It returns a `StreamEnd` behind each recording, and is closed after the sinks.
    """

    def confirm(self, end: StreamEnd, kept: bool, /) -> None:
        """Note that the sinks have committed all messages of a stream.

        Parameters
        ----------
        end : StreamEnd
            The item that `read` has returned at the end of the stream.
        kept : bool
            True if every sink that keeps events has all of them on its disk; False if
            one has lost some.
        """
        ...


@runtime_checkable
class KeepsEvents(Protocol):
    """Sink that keeps its messages on a disk.

    Attributes
    ----------
    uncommitted : int
        Number of messages that `write` has taken and that a kill would lose; the
        last ones. Read from the thread that calls `write`, and after `close`.
    """

    @property
    def uncommitted(self) -> int:
        """Number of messages that a kill would lose."""
        ...

    def commit(self) -> None:
        """Bring all messages to the disk, safe against a loss of power.

        Raises
        ------
        Exception
            As `write`: the disk does not take them.
        """
        ...


@runtime_checkable
class ReportsLosses(Protocol):
    """Sink that goes on although a part of its output was not written.

    Attributes
    ----------
    losses : str or None
        One sentence on all that was not written in the run; None: nothing. Read after
        `close`, from the thread that runs the engine.
    """

    @property
    def losses(self) -> str | None:
        """One sentence, or None."""
        ...


@runtime_checkable
class LimitsClose(Protocol):
    """Sink whose `close` may wait, for slow readers for example."""

    def limit_close(self, seconds: float, /) -> None:
        """Limit the time of `close`, which follows: the run was stopped."""
        ...


@runtime_checkable
class CompletesStreams(Protocol):
    """Sink that completes its work on a stream when the stream has ended."""

    def end_stream(self, stream: str, /) -> bool | None:
        """Complete the work on a stream: no message of it follows.

        Called from the thread that calls `write`, after the stream's last message.

        Returns
        -------
        bool or None
            False if a disk did not take a part of it: a recording is then not
            finished, and is heard again at the next start.
        """
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """Optional methods of a source of several streams that go on without one."""

    def leave_out(self, stream: str, reason: str, /) -> bool:
        """End a stream that cannot be processed; the next item begins another.

        Parameters
        ----------
        stream : str
            Name of the present stream, or of the one before.
        reason : str
            One sentence.

        Returns
        -------
        bool
            False if the run is to fail instead.
        """
        ...

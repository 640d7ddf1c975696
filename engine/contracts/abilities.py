"""Optional abilities of stages and of their options.

A plugin that has the members has the ability: the engine asks by `isinstance`; nothing
has to be inherited or registered.
"""

from collections.abc import Iterable
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.stages import ModelCommand, StepEvents
from neurovocal.engine.contracts.types import Event, Trace


@runtime_checkable
class ReportsNotices(Protocol):
    """Source with remarks for the user, such as channels that are not used.

    Attributes
    ----------
    notices : list of str
        Sentences, appended in the order in which they arise and cleared only in `open`.
        New ones are logged after each `open` and `read`, on the lane's thread.
    """

    @property
    def notices(self) -> list[str]:
        """Sentences that have been appended since `open`."""
        ...


@runtime_checkable
class ReportsFailures(Protocol):
    """Source that continues after an item that it could not read.

    Attributes
    ----------
    failures : list of str
        One sentence per item. Read once, after the lane has ended, from the thread
        that runs the engine; the exit code says that there were some.
    """

    @property
    def failures(self) -> list[str]:
        """One sentence per recording that could not be read, wholly or in part."""
        ...


@runtime_checkable
class Describes(Protocol):
    """Source or sink with more to show in ``neurovocal check`` than its name."""

    def describe(self) -> Iterable[str]:
        """Lines that describe the actions of a run.

        Called once on the main thread, on a stage that has been built and is never
        opened; it must not touch a device or a port.
        """
        ...


@runtime_checkable
class KnowsStart(Protocol):
    """Source that knows the time of day at which its recordings began."""

    def starts(self) -> Iterable[str]:
        """Lines that name each recording and its start, for ``neurovocal label``.

        Called once on the main thread, after the lane has ended.
        """
        ...


@runtime_checkable
class ReportsProgress(Protocol):
    """Source that knows how much of its audio has been read.

    Attributes
    ----------
    progress : tuple of (int, int or None)
        Samples read so far, and in all; None where the total is unknown or endless.
        Read by the display's thread at any moment while the lane's thread reads audio.
    """

    @property
    def progress(self) -> tuple[int, int | None]:
        """Samples read so far, and in all (None: unknown)."""
        ...


@runtime_checkable
class ReportsStats(Protocol):
    """Sink with counters of its own."""

    def stats(self) -> dict[str, object]:
        """Counters as JSON values, by name.

        Called about once a second from a lane's thread while `write` runs on the
        sink's own; it must not block. The counters stand beside those of the sink's
        queues in the ``stats`` message.
        """
        ...


@runtime_checkable
class ReportsTrouble(Protocol):
    """Sink that continues without a part of its work, such as on a full disk.

    Attributes
    ----------
    trouble : str or None
        Why it is incomplete at this moment; None: it is not. Read about once a
        second from a lane's thread; a change is published as a `Health` event.
    """

    @property
    def trouble(self) -> str | None:
        """One sentence, or None."""
        ...


@runtime_checkable
class SelectsKinds(Protocol):
    """Sink that does not take the default selection of event kinds.

    Attributes
    ----------
    wants : frozenset of str
        Kinds of events that `write` takes where the configuration does not list
        any. Read once, on the main thread, after the sink has been built.
    """

    @property
    def wants(self) -> frozenset[str]:
        """Kinds of events, as in `KINDS`."""
        ...


@runtime_checkable
class RunAware(Protocol):
    """Sink that writes the name of the run beside each message.

    Attributes
    ----------
    run : str
        The run that the next message belongs to. Assigned before `write`, from the
        same thread, where messages of several runs are exported from a journal.
    """

    run: str


@runtime_checkable
class HasEndpoint(Protocol):
    """Options of a sink that subscribers connect to.

    Attributes
    ----------
    endpoint : str
        Where the sink publishes, such as ``tcp://127.0.0.1:5556``. Read on the main
        thread before the run begins.
    """

    @property
    def endpoint(self) -> str:
        """Address that subscribers connect to."""
        ...


@runtime_checkable
class Consumes(Protocol):
    """Detector or model that states what its `process` takes.

    Attributes
    ----------
    consumes : {'samples', 'posteriors', 'frames'}
        A model with ``'samples'`` gets the blocks of the lane, on the lane's grid,
        instead of frames; without the attribute a model gets frames. The blocks of a
        tile come before the onsets and offsets that became known in it.
    """

    @property
    def consumes(self) -> Literal["samples", "posteriors", "frames"]:
        """Items that `process` takes beside gaps and marks."""
        ...


@runtime_checkable
class Advances(Protocol):
    """Model that generates events without audio, such as the frames of a song."""

    def advance(self, position: int, /) -> Iterable[Event]:
        """Events up to `position`, where a live stream would be by now, in samples.

        Called on the lane's thread, between two calls of `process`, when a live source
        has delivered nothing for a while.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """Model that answers the events of the other models, such as a label `unknown`."""

    def follow(self, step: StepEvents, /) -> Iterable[Event]:
        """Return the events that those of one step cause.

        Called at the end of each step, before the watchers; in the last step of a
        stream, and in that of a gap, after `flush` or the `process` of the gap. Events
        of models that follow, too, are not among those given.
        """
        ...


@runtime_checkable
class Traces(Protocol):
    """Detector that can show the values from which it decides."""

    def trace(self) -> Iterable[Trace]:
        """Return the values of all hops decided since the last call.

        Called by the lane after each call of `process` and `flush`, where a sink takes
        events of the kind ``trace``; the first call, and the first after a `reset`,
        only begins it. `neurovocal.engine.TraceKeeper` keeps the values.
        """
        ...


@runtime_checkable
class CausesCommands(Protocol):
    """Watcher with triggers that set options of a model.

    Attributes
    ----------
    command : ModelCommand or None
        What a trigger that acts will set; None: nothing. Read once, before the first
        audio, to find out whether it can be carried out.
    """

    @property
    def command(self) -> ModelCommand | None:
        """The command that a trigger will cause, or None."""
        ...


@runtime_checkable
class KnowsFrequencies(Protocol):
    """Features that know the frequencies of their bins.

    Attributes
    ----------
    frequencies_hz : float64[n_bins]
        Centre of each bin in Hz, rising. Read once a second from the lane's thread.
    spacing : {'linear', 'mel'}
        Scale on which the bins are equally far apart.
    """

    @property
    def frequencies_hz(self) -> NDArray[np.float64]:
        """Centre of each bin in Hz."""
        ...

    @property
    def spacing(self) -> Literal["linear", "mel"]:
        """Scale on which the bins are equally far apart."""
        ...


@runtime_checkable
class KnowsScale(Protocol):
    """Features that state the scale and the range of their values.

    Attributes
    ----------
    value_scale : {'linear', 'log', 'mel', 'scaled'}
        Power; its decimal logarithm; ``log10(1 + power)`` in mel bands; one of these,
        scaled per bin. Read once a second from the lane's thread.
    value_range : tuple of float, optional
        Smallest and largest value to which they are clipped; None: they are not.
    """

    @property
    def value_scale(self) -> Literal["linear", "log", "mel", "scaled"]:
        """Meaning of the values."""
        ...

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Limits of the values."""
        ...


@runtime_checkable
class HasPage(Protocol):
    """Options of a sink that serves a page for people.

    Attributes
    ----------
    page : str
        Address for a browser on this machine, such as ``http://127.0.0.1:8420/``;
        empty: it is known only when the sink is open. Read on the main thread before
        the run begins.
    """

    @property
    def page(self) -> str:
        """Address for a browser."""
        ...

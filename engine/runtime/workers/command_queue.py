"""Commands on their way to a lane's thread, and their answers on the way back."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event as Flag
from threading import Lock
from typing import Any, TypeAlias

from neurovocal.engine.contracts.errors import CommandError, NeurovocalError
from neurovocal.engine.contracts.stages import ModelCommand, RecordedCommand
from neurovocal.engine.contracts.types import Control, Health, Trigger
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.runtime.workers.channel import Channel

# A person or a program steers; nobody needs more commands waiting than this.
_MOST_WAITING = 16
Act = Callable[[Channel], Any]
Report = Callable[[Control, Channel], None]


class PendingCommand:
    """One command for the channels of one lane.

    Whoever waits may give up, and the lane may take it: only one of the two
    happens, so that a command that was reported as not carried out never is.

    Parameters
    ----------
    command : Wish or None
        Published where the order is carried out; None: it changes nothing.
    acts : mapping of Lane to callable
        What to do for each channel; called on the lane's thread, quick.
    """

    def __init__(
        self, command: ModelCommand | None, acts: Iterable[tuple[Lane, Act]]
    ) -> None:
        self._command = command
        self._acts = dict(acts)
        self._lock = Lock()
        self._taken = self._dropped = False
        self._done = Flag()
        self._error: Exception | None = None
        self._answers: list[Any] = []

    def carry_out(self, channels: Iterable[Channel], report: Report) -> None:
        """Do it, on the lane's thread between two quanta."""
        with self._lock:
            if self._dropped:
                return
            self._taken = True
        try:
            for channel in channels:
                self._carry_out(channel, report)
        except Exception as error:
            self._error = error
        self._done.set()

    def _carry_out(self, channel: Channel, report: Report) -> None:
        act = self._acts.get(channel.lane)
        if act is None:
            raise CommandError("another stream has begun meanwhile: send it again")
        answer = act(channel)
        if self._command is None:
            self._answers.append(answer)
            return
        sample = channel.lane.heard
        command = self._command
        event = Control(sample, command.name, command.model, dict(command.arguments))
        report(event, channel)
        stream = channel.lane.info.stream
        self._answers.append({"stream": stream, "sample": sample})

    def refuse(self, error: Exception) -> None:
        """Say that it will not be carried out."""
        self._error = error
        self._done.set()

    def wait(self, timeout: float) -> list[Any]:
        """Answers of all channels.

        Raises
        ------
        CommandError
            The lane did not take it in time (it never will), or it failed.
        """
        if not self._done.wait(timeout):
            with self._lock:
                self._dropped = not self._taken
            if self._dropped:
                raise CommandError(
                    f"the lane did not take the command within {timeout:g} s; "
                    "nothing has changed"
                )
            self._done.wait()
        if isinstance(self._error, NeurovocalError):
            raise self._error
        if self._error is not None:
            error = self._error
            raise CommandError(f"it failed: {type(error).__name__}: {error}")
        return self._answers


class CommandQueue:
    """Orders that wait for a lane, in the order in which they came."""

    def __init__(self) -> None:
        self._orders: deque[PendingCommand] = deque()
        self._closed = False

    def put(self, order: PendingCommand) -> None:
        """Add an order.

        Raises
        ------
        CommandError
            Too many wait already, or the lane has ended.
        """
        if self._closed:
            raise CommandError("the lane has ended")
        if len(self._orders) >= _MOST_WAITING:
            raise CommandError(f"{_MOST_WAITING} commands wait already: send fewer")
        self._orders.append(order)

    def due(
        self, channels: Sequence[Channel]
    ) -> Iterator[tuple[PendingCommand, Sequence[Channel]]]:
        """Orders to carry out now, and for which channels."""
        while self._orders:
            yield self._orders.popleft(), channels

    def close(self) -> None:
        """Refuse what waits, and what comes."""
        self._closed = True
        while self._orders:
            self._orders.popleft().refuse(CommandError("the lane has ended"))


class ReplayedCommands(CommandQueue):
    """Commands of a recorded run, each at the position where it took effect.

    Parameters
    ----------
    recalled : iterable of Recalled
        In the order of each stream.
    make : callable
        ``make(command, channel)`` prepares the order anew.
    """

    def __init__(
        self,
        recalled: Iterable[RecordedCommand],
        make: Callable[[ModelCommand, Channel], PendingCommand],
    ) -> None:
        super().__init__()
        self._make = make
        self._waiting: dict[str, deque[RecordedCommand]] = {}
        for each in recalled:
            self._waiting.setdefault(each.stream, deque()).append(each)

    def due(
        self, channels: Sequence[Channel]
    ) -> Iterator[tuple[PendingCommand, Sequence[Channel]]]:
        """Orders whose position has been reached."""
        for channel in channels:
            waiting = self._waiting.get(channel.lane.info.stream)
            while waiting and waiting[0].sample <= channel.lane.heard:
                order = self._make(waiting.popleft().command, channel)
                yield order, [channel]
                order.wait(0.0)  # nobody else would hear of a failure


# Makes the order that a command stands for, or says why it cannot.
Recall: TypeAlias = Callable[[ModelCommand, Channel], PendingCommand]
log = logging.getLogger("neurovocal")


def rehearse(channels: Sequence[Channel], recall: Recall | None) -> None:
    """Find out now whether what triggers are to set can be set.

    Raises
    ------
    NeurovocalError
        It cannot; one sentence says why.
    """
    for channel in channels:
        for watcher in channel.lane.watchers:
            command: ModelCommand | None = getattr(watcher.stage, "command", None)
            if command is not None and recall is not None:
                recall(command, channel)


def set_off(trigger: Trigger, channel: Channel, recall: Recall | None) -> Health | None:
    """Set what a trigger sets, before more is heard: at the same sample always.

    The trigger itself says so; there is no `Control` event besides, which a
    replay would carry out twice. What goes wrong is returned.
    """
    if trigger.decision != "act" or not trigger.model or recall is None:
        return None
    try:
        order = recall(ModelCommand("set", trigger.model, trigger.arguments), channel)
        order.carry_out([channel], lambda event, channel: None)
        order.wait(0.0)
    except NeurovocalError as error:
        log.warning("trigger '%s' set nothing: %s", trigger.trigger, error)
        name = f"trigger '{trigger.trigger}'"
        return Health(name, "lossy", f"it set nothing: {error}")
    return None

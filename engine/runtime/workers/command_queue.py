"""Command queue of a lane: commands that wait for its thread, and their results."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from threading import Event as Flag
from threading import Lock
from typing import Any, TypeAlias

from neurovocal.engine.contracts.abilities import CausesCommands
from neurovocal.engine.contracts.errors import CommandError, NeurovocalError
from neurovocal.engine.contracts.stages import ModelCommand, RecordedCommand
from neurovocal.engine.contracts.types import (
    STOP_COMMAND,
    Control,
    Health,
    Trigger,
)
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.runtime.workers.channel import Channel

log = logging.getLogger("neurovocal")

# A person or a program steers: no more commands need to wait than this.
_MOST_WAITING = 16
Action = Callable[[Channel], Any]
Report = Callable[[Control, Channel], None]


class PendingCommand:
    """One command for the channels of one lane.

    The waiting thread may give up and the lane may start it: only one of the two
    happens, so that a command that was reported as not carried out never is.

    Parameters
    ----------
    command : ModelCommand or None
        Published where it takes effect; None: it changes nothing.
    actions : iterable of (Lane, callable)
        Action on the channel of each lane; called on the lane's thread, quick.
    """

    def __init__(
        self, command: ModelCommand | None, actions: Iterable[tuple[Lane, Action]]
    ) -> None:
        self._command = command
        self._actions = dict(actions)
        self._lock = Lock()
        self._started = self._dropped = False
        self._done = Flag()
        self._error: Exception | None = None
        self._results: list[Any] = []

    def apply(self, channels: Iterable[Channel], report: Report) -> None:
        """Carry it out, on the lane's thread between two quanta.

        Parameters
        ----------
        channels : iterable of Channel
            Channels that it is for.
        report : callable
            ``report(event, channel)`` publishes the `Control` event.
        """
        with self._lock:
            if self._dropped:
                return
            self._started = True
        try:
            for channel in channels:
                self._apply(channel, report)
        except Exception as error:
            self._error = error
        self._done.set()

    def _apply(self, channel: Channel, report: Report) -> None:
        action = self._actions.get(channel.lane)
        if action is None:
            raise CommandError("another stream has begun meanwhile: send it again")
        result = action(channel)
        if self._command is None:
            self._results.append(result)
            return
        sample = channel.lane.processed
        command = self._command
        event = Control(sample, command.name, command.model, dict(command.arguments))
        report(event, channel)
        info = channel.lane.info
        place = {"stream": info.stream, "sample": sample}
        self._results.append({**place, "seconds": round(sample / info.sample_rate, 3)})

    def reject(self, error: Exception) -> None:
        """End the wait with `error`: it will not be carried out."""
        self._error = error
        self._done.set()

    def wait(self, timeout: float) -> list[Any]:
        """Return the results of all channels.

        Raises
        ------
        CommandError
            The lane did not start it within `timeout` seconds (it never will), or
            it failed.
        """
        if not self._done.wait(timeout):
            with self._lock:
                self._dropped = not self._started
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
        return self._results


class CommandQueue:
    """Commands that wait for a lane, in the order in which they came.

    Attributes
    ----------
    pending : Sized
        Empty while `apply_due` has nothing to do.
    stops : dict of str to int
        How many samples of a stream are read before it is stopped, where that is known
        beforehand.
    swaps : dict of str to list of RecordedCommand
        Swaps of a recorded run, by stream.
    """

    pending: Sized

    def __init__(self) -> None:
        self._commands: deque[PendingCommand] = deque()
        self.pending = self._commands
        self.stops: dict[str, int] = {}
        self.swaps: dict[str, list[RecordedCommand]] = {}
        self._closed = False

    def put(self, command: PendingCommand) -> None:
        """Add a command.

        Raises
        ------
        CommandError
            Too many wait already, or the lane has ended.
        """
        if self._closed:
            raise CommandError("the lane has ended")
        if len(self._commands) >= _MOST_WAITING:
            raise CommandError(f"{_MOST_WAITING} commands wait already: send fewer")
        self._commands.append(command)

    def apply_due(self, channels: Sequence[Channel], report: Report) -> None:
        """Carry out all waiting commands; ``report(event, channel)`` publishes."""
        while self._commands:
            self._commands.popleft().apply(channels, report)

    def close(self) -> None:
        """Reject all waiting commands, and those that come later."""
        self._closed = True
        while self._commands:
            self._commands.popleft().reject(CommandError("the lane has ended"))


# Makes the pending command of one channel, or says why it cannot.
PrepareCommand: TypeAlias = Callable[[ModelCommand, Channel], PendingCommand]


class ReplayedCommands(CommandQueue):
    """Commands of a recorded run, each at the position where it took effect.

    Parameters
    ----------
    recorded : iterable of RecordedCommand
        In the order of each stream.
    prepare : callable
        ``prepare(command, channel)`` makes the pending command.
    """

    def __init__(
        self, recorded: Iterable[RecordedCommand], prepare: PrepareCommand
    ) -> None:
        super().__init__()
        self._prepare = prepare
        self._recorded: dict[str, deque[RecordedCommand]] = {}
        for each in recorded:
            if each.command.name == STOP_COMMAND:
                position = each.command.arguments.get("position")
                if isinstance(position, int):  # earlier versions did not tell it
                    self.stops[each.stream] = position
            elif each.command.name == "swap":
                self.swaps.setdefault(each.stream, []).append(each)
            else:
                self._recorded.setdefault(each.stream, deque()).append(each)
        self.pending = self._recorded

    def apply_due(self, channels: Sequence[Channel], report: Report) -> None:
        """Carry out the commands at positions that the channel's lane has reached.

        Raises
        ------
        NeurovocalError
            A command cannot be carried out.
        """
        for channel in channels:
            waiting = self._recorded.get(channel.lane.info.stream)
            while waiting and waiting[0].sample <= channel.lane.processed:
                command = self._prepare(waiting.popleft().command, channel)
                command.apply([channel], report)
                command.wait(0.0)  # raises its failure


def check_trigger_commands(
    channels: Sequence[Channel], prepare: PrepareCommand | None
) -> None:
    """Prepare, but do not apply, the commands that triggers of each lane may cause.

    Raises
    ------
    NeurovocalError
        One of them cannot be carried out; one sentence says why.
    """
    for channel in channels:
        for watcher in channel.lane.watchers:
            stage = watcher.stage
            if not isinstance(stage, CausesCommands) or prepare is None:
                continue
            if stage.command is not None:
                prepare(stage.command, channel)


def apply_trigger(
    trigger: Trigger, channel: Channel, prepare: PrepareCommand | None
) -> Health | None:
    """Set the options that a trigger sets, at the same sample in every run.

    The trigger event itself records it; there is no `Control` event besides, which a
    replay would carry out twice.

    Returns
    -------
    Health or None
        The failure, if the options could not be set.
    """
    if trigger.decision != "act" or not trigger.model or prepare is None:
        return None
    try:
        arguments = trigger.arguments
        command = prepare(ModelCommand("set", trigger.model, arguments), channel)
        command.apply([channel], _report_nothing)
        command.wait(0.0)
    except NeurovocalError as error:
        log.warning("trigger '%s' set nothing: %s", trigger.trigger, error)
        name = f"trigger '{trigger.trigger}'"
        return Health(name, "lossy", f"it set nothing: {error}")
    return None


def _report_nothing(event: Control, channel: Channel) -> None:
    """Publish nothing."""

"""Command bus: carries out requests while a run goes on (docs/reference/control.md)."""

import logging
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Protocol, TypeAlias

from neurovocal.engine.contracts.errors import CommandError, NeurovocalError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.stages import CommandedModel, ModelCommand
from neurovocal.engine.contracts.types import STOP_COMMAND
from neurovocal.engine.runtime.control.requests import (
    OWN_COMMANDS,
    VERSION,
    ControlRequest,
    checked,
    id_of,
)
from neurovocal.engine.runtime.control.swap import SwapArguments, Swapper
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.command_queue import Action, PendingCommand
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.support.text import did_you_mean

log = logging.getLogger("neurovocal")

Reply: TypeAlias = dict[str, Any]


class Swaps(Protocol):
    """What replaces the stages of a run, in one process or in several."""

    def begin(self, arguments: SwapArguments) -> dict[str, Any]:
        """Begin to replace the stages."""

    def promote(self) -> dict[str, Any]:
        """Put the shadow in the place of the stages that it runs beside."""

    def drop(self) -> dict[str, Any]:
        """End the shadow."""


def answer_swap(request: ControlRequest, swaps: Swaps) -> Reply:
    """Carry out ``swap``, ``promote`` or ``drop``, and return the reply.

    Raises
    ------
    CommandError
        The request names a lane, a model or wrong arguments, or is refused.
    """
    name = request.command
    if request.lane is not None or request.model is not None:
        raise CommandError(f"'{name}' is for the whole run: leave out lane and model")
    if name == "swap":
        return swaps.begin(checked(SwapArguments, request.arguments, "'swap'"))
    if request.arguments:
        raise CommandError(f"'{name}' takes no arguments")
    return swaps.promote() if name == "promote" else swaps.drop()


class CommandBus:
    """Takes requests from any thread and replies when they took effect.

    One command is carried out at a time, so that each is checked against the options
    that the one before has set.

    Parameters
    ----------
    run : str
        Name of the run.
    lanes : sequence of LaneWorker
        Lanes of the run.
    stop : callable
        Ends the run.
    patience_s : float
        Longest time in s that a lane may take to start a command.
    swapper : Swapper, optional
        Carries out `swap`; without it that is refused.
    """

    def __init__(
        self,
        run: str,
        lanes: Sequence[LaneWorker],
        stop: Callable[[], None],
        patience_s: float = 2.0,
        swapper: Swapper | None = None,
    ) -> None:
        self._run = run
        self._lanes = lanes
        self._stop = stop
        self._swapper = swapper
        self._patience_s = patience_s
        self._lock = Lock()

    def submit(self, request: object) -> Reply:
        """Carry out a command and return the reply.

        Parameters
        ----------
        request : object
            Any JSON value; see `ControlRequest`.

        Returns
        -------
        dict
            ``{v, id, ok: True, command, ...}``, or ``{v, id, ok: False, error}`` with
            one sentence, when nothing was changed.
        """
        return replied(request, self._lock, self._answer)

    def check(self, request: object) -> None:
        """Check a command for models as `submit` does, and carry out nothing.

        Raises
        ------
        NeurovocalError
            It would be refused.
        """
        wanted = checked(ControlRequest, request, "a command")
        workers = self._addressed(wanted.lane)
        name = _model_of(wanted, workers)
        command = ModelCommand(wanted.command, name, wanted.arguments)
        for worker in workers:
            for channel in worker.channels:
                _prepared(command, channel)

    def _answer(self, request: ControlRequest) -> Reply:
        workers = self._addressed(request.lane)
        if request.command == "ping":
            return {"run": self._run}
        if request.command == "status":
            lanes = [self._status(worker) for worker in workers]
            swapped = self._swapper.status() if self._swapper else None
            return {"run": self._run, "lanes": lanes, "swap": swapped}
        if request.command in ("swap", "promote", "drop"):
            return self._swap(request)
        if request.command == "stop":
            try:
                stop = ModelCommand(STOP_COMMAND, "", {})
                return {"applied": self._send(workers, stop)}
            finally:
                self._stop()  # a lane that does not answer ends, too
        command = ModelCommand(
            request.command, _model_of(request, workers), request.arguments
        )
        return {
            "applied": self._send(workers, command),
            **self._options(workers, command),
        }

    def _swap(self, request: ControlRequest) -> Reply:
        if self._swapper is None:
            raise CommandError("this run cannot be swapped")
        return answer_swap(request, self._swapper)

    def _addressed(self, name: str | None) -> Sequence[LaneWorker]:
        if not self._lanes or any(not worker.channels for worker in self._lanes):
            raise CommandError("the run has not begun yet: ask again")
        if name is None:
            living = [lane for lane in self._lanes if not lane.finished.is_set()]
            return living or self._lanes
        found = [worker for worker in self._lanes if worker.name == name]
        if not found:
            known = ", ".join(f"'{worker.name}'" for worker in self._lanes)
            raise CommandError(f"there is no lane '{name[:64]}' (there is: {known})")
        return found

    def _send(self, workers: Sequence[LaneWorker], command: ModelCommand) -> list[Any]:
        """Prepare the command for all lanes, then queue it: failures come first."""
        pending = []
        for worker in workers:
            if worker.finished.is_set():
                raise CommandError(f"lane '{worker.name}' has ended")
            actions = [(c.lane, _prepared(command, c)) for c in worker.channels]
            # A lane publishes where it was stopped, whatever stopped it.
            is_stop = command.name == STOP_COMMAND
            pending.append(PendingCommand(None if is_stop else command, actions))
        for worker, each in zip(workers, pending, strict=True):
            worker.commands.put(each)
        answers: list[Any] = []
        refused = []
        for worker, each in zip(workers, pending, strict=True):
            try:
                answers += each.wait(self._patience_s)
            except CommandError as error:
                refused.append(f"lane '{worker.name}': {error}")
        if refused and answers:
            took = ", ".join(f"'{answer['stream']}'" for answer in answers)
            refused.append(f"but these streams took it: {took}")
        if refused:
            raise CommandError("; ".join(refused))
        return answers

    def _status(self, worker: LaneWorker) -> Reply:
        status: Reply = {"lane": worker.name, "ended": worker.finished.is_set()}
        channels = worker.channels
        if not status["ended"] and not channels:
            return {**status, "streams": [], "models": []}
        if not status["ended"]:
            actions = [(c.lane, _statistics_of(worker)) for c in channels]
            pending = PendingCommand(None, actions)
            try:
                worker.commands.put(pending)
                streams = pending.wait(self._patience_s)
            except CommandError as error:
                return {**status, "error": str(error)}
            return {**status, "streams": streams, "models": _models(channels[0])}
        return status

    def _options(self, workers: Sequence[LaneWorker], command: ModelCommand) -> Reply:
        stage = _stage_of(_channel_of(workers[0]), command.model)
        return {"options": _adjustable(stage)}


def replied(
    request: object, lock: Lock, answer: Callable[[ControlRequest], Reply]
) -> Reply:
    """Return the reply to a request, which `answer` carries out with the lock held."""
    head: Reply = {"v": VERSION, "id": id_of(request), "ok": True}
    try:
        wanted = checked(ControlRequest, request, "a command")
        with lock:
            found = answer(wanted)
    except NeurovocalError as error:
        sentence = " ".join(str(error).split())
        return {**head, "ok": False, "error": sentence}
    except Exception:  # every request is answered
        log.exception("a command failed")
        failure = "the engine failed to carry it out; see its log"
        return {**head, "ok": False, "error": failure}
    return {**head, "command": wanted.command, **found}


def prepare_command(command: ModelCommand, channel: Channel) -> PendingCommand:
    """Prepare a command that a trigger or a recorded run causes, for one channel.

    Raises
    ------
    NeurovocalError
        It cannot be carried out; one sentence says why.
    """
    return PendingCommand(command, [(channel.lane, _prepared(command, channel))])


def _prepared(command: ModelCommand, channel: Channel) -> Action:
    """Check a command and prepare it; return the action that applies it."""
    if command.name == STOP_COMMAND:
        return _reached
    stage = _stage_of(channel, command.model)
    if command.name == "set":
        arguments: Options = _merged(stage, command)
    else:
        form = stage.commands.get(command.name)
        if form is None:
            raise CommandError(_unknown_command(command.name, stage))
        arguments = checked(form, command.arguments, f"'{command.name}'")
    prepared = stage.prepare(command.name, arguments)
    return lambda channel: stage.apply(command.name, prepared)


def _reached(channel: Channel) -> dict[str, object]:
    """Return the sample up to which a lane has processed its stream."""
    info, sample = channel.lane.info, channel.lane.processed
    seconds = round(sample / info.sample_rate, 3)
    return {"stream": info.stream, "sample": sample, "seconds": seconds}


def _channel_of(worker: LaneWorker) -> Channel:
    if not worker.channels:
        raise CommandError(
            f"lane '{worker.name}' has received no audio yet: try again later"
        )
    return worker.channels[0]


def _statistics_of(worker: LaneWorker) -> Action:
    def statistics(channel: Channel) -> Reply:
        info = channel.lane.info
        head = {"stream": info.stream, "sample_rate": info.sample_rate}
        return {**head, **worker.telemetry.statistics(channel)}

    return statistics


def _models(channel: Channel) -> list[Reply]:
    """Return each model's adjustable options and its commands."""
    models = []
    for index, model in enumerate(channel.lane.models):
        entry: Reply = {"model": model.plugin, "index": index, "failed": model.failed}
        if isinstance(model.stage, CommandedModel):
            entry["options"] = _adjustable(model.stage)
            entry["commands"] = ["set", *sorted(model.stage.commands)]
        models.append(entry)
    return models


def _adjustable(stage: CommandedModel) -> Reply:
    options = stage.options.model_dump(mode="json")
    return {name: options[name] for name in sorted(stage.adjustable)}


def _model_of(request: ControlRequest, workers: Sequence[LaneWorker]) -> str:
    """Return the addressed model, as a name or index that is the same in all lanes."""
    if request.model is not None:
        return str(request.model)
    name: str | None = None
    for worker in workers:
        found = [
            (index, model.plugin)
            for index, model in enumerate(_channel_of(worker).lane.models)
            if isinstance(model.stage, CommandedModel)
        ]
        if not found:
            raise CommandError(
                f"lane '{worker.name}' has no model that takes '{request.command}' "
                f"(without one there are: {', '.join(OWN_COMMANDS)})"
            )
        if len(found) > 1:
            names = ", ".join(f"{index} ({plugin})" for index, plugin in found)
            raise CommandError(f"say which 'model' is meant: {names}")
        name = str(found[0][1])
    if name is None:
        raise CommandError("there is no lane")
    return name


def _stage_of(channel: Channel, model: str) -> CommandedModel:
    models = channel.lane.models
    found = [
        each for index, each in enumerate(models) if model in (str(index), each.plugin)
    ]
    if not found:
        known = ", ".join(f"{i} ({m.plugin})" for i, m in enumerate(models)) or "none"
        raise CommandError(f"there is no model '{model[:64]}' (there is: {known})")
    if len(found) > 1:
        raise CommandError(f"several models are '{model}': name its place in the list")
    if not isinstance(found[0].stage, CommandedModel):
        raise CommandError(f"model '{model}' takes no commands")
    return found[0].stage


def _merged(stage: CommandedModel, command: ModelCommand) -> Options:
    """Return the stage's options with the changes of `set`, checked as a whole."""
    if not command.arguments:
        raise CommandError(
            f"'set' without arguments changes nothing; it can: {_listed(stage)}"
        )
    for name in command.arguments:
        if name not in stage.adjustable:
            raise CommandError(_not_adjustable(name, stage))
    form = type(stage.options)
    return checked(form, {**stage.options.model_dump(), **command.arguments}, "'set'")


def _not_adjustable(name: str, stage: CommandedModel) -> str:
    if name in type(stage.options).model_fields:
        return f"'{name}' cannot be changed while it runs (these can: {_listed(stage)})"
    return (
        f"unknown option '{name[:64]}' ({did_you_mean(name, sorted(stage.adjustable))})"
    )


def _unknown_command(command: str, stage: CommandedModel) -> str:
    known = [*OWN_COMMANDS, *sorted(stage.commands)]
    return f"unknown command '{command}' ({did_you_mean(command, known)})"


def _listed(stage: CommandedModel) -> str:
    return ", ".join(sorted(stage.adjustable))

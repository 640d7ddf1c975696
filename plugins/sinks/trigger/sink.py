"""Play a sound or set a model when a pattern of units occurs.

The watcher in the lane decides when, by the audio alone; the sink acts, and measures
the latency from the trigger to the sound.
"""

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from neurovocal.engine import (
    BuildContext,
    Clock,
    ConfigError,
    DeviceError,
    FileAccess,
    Message,
    ModelCommand,
    Plugin,
    Trigger,
)
from neurovocal.engine.support.text import did_you_mean
from neurovocal.engine.wire.headers import header_of
from neurovocal.plugins.devices.choice import find_device
from neurovocal.plugins.sinks.trigger.options import PlayOptions, TriggerOptions
from neurovocal.plugins.sinks.trigger.pattern import Pattern, read_pattern
from neurovocal.plugins.sinks.trigger.player import PlaybackRequest, Player
from neurovocal.plugins.sinks.trigger.watcher import PatternWatcher, Rules
from neurovocal.plugins.storage.existing import text_kind
from neurovocal.plugins.storage.text_file import (
    TextOutput,
    file_access,
    file_claim,
    output_problems,
)

log = logging.getLogger("neurovocal")

_MOST_LATENCIES = 1000  # of which percentiles are published
_LOG = text_kind("a log of triggers", r"\{.*\}")
_MS_NS = 1_000_000  # nanoseconds in a millisecond


class TriggerSink:
    """Plays a sound for each trigger of its name, and counts and logs the outcomes.

    Parameters
    ----------
    options : TriggerOptions
        Checked options.
    context : BuildContext
        Clock and name of the run; in a dry run the sink does nothing.
    """

    wants = frozenset({"trigger"})

    def __init__(self, options: TriggerOptions, context: BuildContext) -> None:
        self._name, self._play = options.name, options.play
        self._says = options.say is not None
        self._run, self._dry_run = context.run, context.dry_run
        self._log = None
        if options.log is not None:
            self._log = TextOutput(options.log, existing="append", kind=_LOG)
        self._player = None
        if options.play is not None:
            self._player = _player(options.play, context, context.clock)
        self._requests: dict[PlaybackRequest, Message] = {}
        self._outcomes: dict[str, int] = {}
        self._latencies_ms: deque[float] = deque(maxlen=_MOST_LATENCIES)
        self._warned = False

    def open(self) -> None:
        """Load the sound and open the output device and the log.

        Raises
        ------
        NeurovocalError
            The sound, the device or the log cannot be opened.
        """
        if self._dry_run:
            return
        if self._player:
            self._player.open()
        if self._log:
            self._log.open()

    def write(self, message: Message) -> None:
        """Act on a trigger, without waiting for the sound.

        Raises
        ------
        StageError
            The device has stopped, or the log cannot be written.
        """
        trigger = message.event
        if not isinstance(trigger, Trigger) or trigger.trigger != self._name:
            return
        if self._dry_run:
            return
        if trigger.decision != "act":
            self._record(message, trigger.decision)
        elif self._player is None or self._play is None:
            acted = "said" if self._says else "set"
            self._record(message, acted if trigger.model else "told")
        elif not message.emitted_ns or message.ledger is None:
            self._reject(message)
        else:
            instant_ns = _instant_ns(message)
            request = PlaybackRequest(
                instant_ns + round(self._play.delay_ms * _MS_NS),
                instant_ns + round(self._play.latest_ms * _MS_NS),
            )
            self._player.play(request)
            self._requests[request] = message
        self._record_played()

    def flush(self, timeout: float) -> None:
        """Record the outcomes of requested sounds."""
        self._record_played()
        if self._log:
            self._log.flush()

    def close(self) -> None:
        """Play the last sound to its end, record it and close device and log."""
        if self._player:
            self._player.close()
        self._record_played()
        if self._log:
            self._log.close()

    def stats(self) -> dict[str, object]:
        """Return outcomes and percentiles of the latency, for the ``stats`` event."""
        found: dict[str, object] = {"outcomes": dict(self._outcomes)}
        if self._player:
            found["device_underflows"] = self._player.underflows
        if latencies := sorted(self._latencies_ms):
            found["total_ms"] = {
                f"p{share}": round(latencies[(len(latencies) - 1) * share // 100], 3)
                for share in (50, 95, 99)
            }
        return found

    def _reject(self, message: Message) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "trigger '%s' plays nothing: audio that is not live has no time at "
                "which a sound could answer it (a file has: pace: realtime)",
                self._name,
            )
        self._record(message, "not live")

    def _record_played(self) -> None:
        for request in self._player.pop_done() if self._player else ():
            message = self._requests.pop(request)
            self._record(message, request.outcome, request)

    def _record(
        self, message: Message, outcome: str, request: PlaybackRequest | None = None
    ) -> None:
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        line = {
            **msgspec.to_builtins(header_of(message)),
            "run": self._run,
            "utc_ns": message.utc_ns,
            "outcome": outcome,
        }
        if message.ledger is not None:
            line |= msgspec.to_builtins(message.ledger)
        if request is not None and request.output_ns:
            line |= _output_latencies(message, request)
            if outcome == "played":
                self._latencies_ms.append(line["total_ms"])
        if self._log:
            self._log.write(msgspec.json.encode(line).decode() + "\n")


def _instant_ns(message: Message) -> int:
    """Return the monotonic time of the trigger's instant in the audio, in ns.

    Computed from the latency ledger, as if audio took its own length to arrive.
    """
    ledger = message.ledger
    assert ledger is not None
    late_ms = ledger.wait_ms + ledger.queue_ms + ledger.compute_ms
    return message.emitted_ns - round(late_ms * _MS_NS)


def _output_latencies(message: Message, request: PlaybackRequest) -> dict[str, object]:
    return {
        "handover_ms": _ms(request.callback_ns - message.emitted_ns),
        "device_ms": _ms(request.output_ns - request.callback_ns),
        "total_ms": _ms(request.output_ns - _instant_ns(message)),
        "output_sample": request.position,
        "delayed_ms": _ms(max(0, request.due_ns - _instant_ns(message))),
    }


def _ms(ns: int) -> float:
    return round(ns / _MS_NS, 3)


def _player(options: PlayOptions, context: BuildContext, clock: Clock) -> Player:
    gain = 10 ** (options.gain_db / 20)
    path = str(context.path(options.path))
    return Player(path, options.device, gain, options.block_ms, clock)


def _build(options: TriggerOptions, context: BuildContext) -> TriggerSink:
    return TriggerSink(options, context)


def _build_watcher(options: TriggerOptions, context: BuildContext) -> PatternWatcher:
    if problems := list(_lane_problems(options, context)):
        raise ConfigError([f"trigger '{options.name}': {each}" for each in problems])
    rules = Rules(
        name=options.name,
        pattern=read_pattern(options.pattern),
        posterior=options.posterior,
        status=options.status,
        labels_from=options.labels_from,
        bout_gap_ms=options.bout_gap_ms,
        refractory_ms=options.refractory_ms,
        catch_share=options.catch_share,
        seed=options.seed,
        streams=options.streams,
    )
    command = None
    if options.set:
        command = ModelCommand("set", options.set.model, options.set.arguments)
    elif options.say:
        units = {"units": options.say.units}
        command = ModelCommand("say", options.say.model, units)
    # A detector on posteriors gets a sample once its last frame is complete.
    latency = context.detector_latency + context.frame_length
    return PatternWatcher(rules, latency, command)


def _resources(options: TriggerOptions) -> frozenset[str]:
    names = frozenset([f"trigger:{options.name}"])
    return names | file_claim(options.log) if options.log else names


def _check(options: TriggerOptions, context: BuildContext) -> Iterator[str]:
    if context.dry_run:
        return
    if options.log is not None:
        yield from output_problems(options.log, _LOG)
    if options.play is not None:
        path = Path(context.path(options.play.path))
        if not path.is_file():
            yield f"play.path: sound '{options.play.path}' does not exist"
        try:
            find_device(options.play.device, "output")
        except DeviceError as error:
            yield f"play.device: {error}"


def _reads(options: TriggerOptions, context: BuildContext) -> list[FileAccess]:
    if options.play is None:
        return []
    return [FileAccess(Path(context.path(options.play.path)))]


def _writes(options: TriggerOptions, context: BuildContext) -> list[FileAccess]:
    return file_access(options.log) if options.log else []


def _lane_problems(options: TriggerOptions, context: BuildContext) -> Iterator[str]:
    """Yield a sentence for each reason why the trigger cannot occur in a lane."""
    if options.streams is not None and (
        context.info is None or context.info.stream not in options.streams
    ):
        return  # the stream may be known only once the source is open
    pattern = read_pattern(options.pattern)
    yield from _unknown_units(pattern, context)
    unlabelled = options.status == "onset" or pattern.at_end
    if (pattern.units or not unlabelled) and not context.models:
        yield "the lane has no model that labels: add 'classifier' to its 'models'"
    for name, action in (("set", options.set), ("say", options.say)):
        if action and not _has_model(action.model, context.models):
            known = ", ".join(context.models) or "none"
            yield (
                f"{name}.model: there is no model '{action.model}' (there is: {known})"
            )


def _has_model(model: str, models: tuple[str, ...]) -> bool:
    """Return True if a model is the name or the index of one of the models."""
    return model in models or model in map(str, range(len(models)))


def _unknown_units(pattern: Pattern, context: BuildContext) -> Iterator[str]:
    spec = context.bundle.manifest.classifier if context.bundle else None
    if spec is None:
        return
    known = [unit for unit in spec.units if unit != spec.silence] + [spec.unknown]
    for unit in sorted(pattern.units - set(known)):
        meant = did_you_mean(unit, known, "it has")
        yield f"pattern: the bundle has no unit '{unit}' ({meant})"


plugin = Plugin(
    kind="sink",
    options=TriggerOptions,
    build=_build,
    summary="Closed loops: plays a sound or sets options when a pattern is heard",
    resources=_resources,
    check=_check,
    reads=_reads,
    writes=_writes,
    watch=_build_watcher,
    check_lane=_lane_problems,
)

"""Send labels as markers, level and surprise to the Lab Streaming Layer."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from neurovocal.engine import (
    NS,
    BuildContext,
    Clock,
    ConfigError,
    Label,
    Message,
    Offset,
    Onset,
    Options,
    Plugin,
    StageError,
    Stats,
    Surprise,
)
from neurovocal.engine.contracts.options import OptionProblem

_Stream = Literal["markers", "level", "surprise"]
_KINDS = frozenset({"onset", "offset", "label", "stats", "surprise"})
# Each file of a folder is a stream of its own, and each outlet has threads and ports.
_MOST_OUTLETS = 64
_MOST_CHARS = 200
_BUFFERED_S = 360
# Where the library looks for a configuration of the user.
_CONFIGURATIONS = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
_QUIET = "[log]\nlevel = -2\n"  # warnings: the terminal belongs to the engine


class LslOptions(Options):
    """Options of the ``lsl`` sink."""

    streams: list[_Stream] = Field(default=["markers"], min_length=1)
    """What is sent: `markers` (final labels, at their onset), `level` (dB, once a
    second) and `surprise` (one value a frame, of the model `rnn_rbm`)."""
    marks: list[Literal["label", "onset", "offset"]] = Field(
        default=["label"], min_length=1
    )
    """Events that are markers. An onset is the text `onset`, an offset `offset`."""
    allow_remote: bool = False
    """Whether other machines may find and read the streams: the library listens on all
    addresses of this one, without keys or encryption, and cannot be told otherwise."""

    @field_validator("streams", "marks")
    @classmethod
    def _differ(cls, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))


class LslSink:
    """Has outlets for each stream of the engine (docs/connect/lsl.md).

    A sample has the time of its instant in LSL's clock, not that of its sending: the
    engine's time of the sample, corrected for the drift of the sound card.

    Parameters
    ----------
    options : LslOptions
        Checked options.
    clock : Clock
        Gives UTC, by which times are converted.
    station : str
        Name in those of the outlets.
    """

    def __init__(self, options: LslOptions, clock: Clock, station: str) -> None:
        self._options, self._clock = options, clock
        self._station = _text(station)
        self.wants = frozenset(_kinds_of(options))
        self._outlets: dict[tuple[str, str], Any] = {}
        self._is_open = False
        self._pushed = self._left_out = 0

    def open(self) -> None:
        """Load the library; outlets are made when their stream begins.

        Raises
        ------
        ConfigError
            The library is missing, or `allow_remote` is.
        """
        problems = list(_problems(self._options))
        if problems:
            raise ConfigError(problems)
        _configure()
        self._is_open = True

    def write(self, message: Message) -> None:
        """Push the samples of an event; StageError if the sink is not open."""
        if not self._is_open:
            raise StageError("the LSL sink is not open")
        event, stream = message.event, message.info.stream
        for kind in self._options.streams:
            # Made before there is something to send: an inlet takes time to connect.
            self._outlet(kind, stream)
        match event:
            case Label() if event.status == "final" and "label" in self._options.marks:
                self._mark(message, _text(event.unit))
            case Onset() if "onset" in self._options.marks:
                self._mark(message, "onset")
            case Offset() if "offset" in self._options.marks:
                self._mark(message, "offset")
            case Stats() if "level" in self._options.streams:
                level = event.values.get("level_db")
                if isinstance(level, float):
                    self._push("level", stream, [[level]], [self._now_s(message)])
            case Surprise() if "surprise" in self._options.streams:
                self._push_surprise(message, event)

    def flush(self, timeout: float) -> None:
        """Do nothing: the library sends by itself."""

    def close(self) -> None:
        """Close the outlets. May be called twice."""
        self._outlets.clear()
        self._is_open = False

    def stats(self) -> dict[str, object]:
        """Return the numbers of samples, of outlets, and of those with a reader."""
        outlets = list(self._outlets.values())
        return {
            "pushed": self._pushed,
            "outlets": len(outlets),
            "read": sum(bool(outlet.have_consumers()) for outlet in outlets),
            "left_out": self._left_out,
        }

    def _mark(self, message: Message, text: str) -> None:
        if "markers" in self._options.streams:
            time_s = self._now_s(message)
            self._push("markers", message.info.stream, [[text]], [time_s])

    def _push_surprise(self, message: Message, event: Surprise) -> None:
        first_s = self._now_s(message)
        hop_s = event.hop_length / message.info.sample_rate
        values = np.asarray(event.values, np.float32)
        times = first_s + hop_s * np.arange(len(values))
        is_known = np.isfinite(values)
        if is_known.any():
            rows = values[is_known, None].tolist()
            stream = message.info.stream
            self._push("surprise", stream, rows, times[is_known].tolist())

    def _push(
        self, kind: str, stream: str, rows: list[list[Any]], times: list[float]
    ) -> None:
        outlet = self._outlet(kind, stream)
        if outlet is None:
            self._left_out += len(rows)
            return
        if len(rows) == 1:
            outlet.push_sample(rows[0], times[0])
        else:
            outlet.push_chunk(rows, times)
        self._pushed += len(rows)

    def _outlet(self, kind: str, stream: str) -> Any:
        """Return the outlet of a stream, made at its first event; None: too many."""
        outlet = self._outlets.get((kind, stream))
        if outlet is None and len(self._outlets) < _MOST_OUTLETS:
            outlet = self._outlets[kind, stream] = self._new_outlet(kind, stream)
        return outlet

    def _new_outlet(self, kind: str, stream: str) -> Any:
        import pylsl

        form = pylsl.cf_string if kind == "markers" else pylsl.cf_float32
        name = f"NeuroVocal {self._station} {_text(stream)} {kind}"
        info = pylsl.StreamInfo(
            name,
            "Markers" if kind == "markers" else "Audio features",
            1,
            pylsl.IRREGULAR_RATE,
            form,
            # By it an inlet finds the stream again when the engine was restarted.
            f"neurovocal/{self._station}/{_text(stream)}/{kind}",
        )
        channel = info.desc().append_child("channels").append_child("channel")
        channel.append_child_value("label", kind)
        if kind == "level":
            channel.append_child_value("unit", "dB")
        return pylsl.StreamOutlet(info, max_buffered=_BUFFERED_S)

    def _now_s(self, message: Message) -> float:
        """Return the instant of a message in LSL's clock.

        UTC of the event's sample lies so far in the past as the instant does in LSL's
        clock; an event without a time, of a recording, is now.
        """
        import pylsl

        now_s: float = pylsl.local_clock()
        if message.utc_ns is None:
            return now_s
        return now_s + (message.utc_ns - self._clock.utc_ns()) / NS


def _kinds_of(options: LslOptions) -> Iterator[str]:
    """Yield the kinds of events that are needed; each second's `stats` make outlets."""
    yield "stats"
    if "markers" in options.streams:
        yield from options.marks
    if "surprise" in options.streams:
        yield "surprise"


def _configure() -> None:
    """Keep the library from writing to the terminal, unless a user configured it."""
    import pylsl

    paths = [Path(os.path.expanduser(path)) for path in _CONFIGURATIONS]
    if "LSLAPICFG" not in os.environ and not any(path.exists() for path in paths):
        pylsl.set_config_content(_QUIET)


def _text(name: str) -> str:
    return name[:_MOST_CHARS].encode("utf-8", "backslashreplace").decode()


def _problems(options: LslOptions) -> Iterator[str]:
    if not options.allow_remote:
        yield OptionProblem(
            "allow_remote",
            "the Lab Streaming Layer lets every machine of the network find and read "
            "the streams: say 'allow_remote: true' if they may",
        )
    try:
        import pylsl  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        yield (
            "sink 'lsl' needs pylsl with the library liblsl, which cannot be loaded "
            f"({reason}): pip install 'neurovocal[lsl]'"
        )


def _all_problems(options: LslOptions, context: BuildContext) -> Iterator[str]:
    yield from _problems(options)
    unsent = sorted(frozenset(context.events or ()) - _KINDS)
    if unsent:
        yield f"sink 'lsl' sends no {', '.join(unsent)}: {', '.join(sorted(_KINDS))}"


plugin = Plugin(
    kind="sink",
    options=LslOptions,
    build=lambda options, context: LslSink(options, context.clock, context.stream),
    summary="sends labels as markers, level and surprise to the Lab Streaming Layer",
    resources=lambda options: frozenset(f"service:lsl {s}" for s in options.streams),
    check=_all_problems,
)

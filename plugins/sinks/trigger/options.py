"""Options of the ``trigger`` sink."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from neurovocal.engine import Options
from neurovocal.engine.contracts.options import INT64_MAX, DeviceNumber, Order
from neurovocal.plugins.sinks.trigger.pattern import PatternError, read_pattern


class PlayOptions(Options):
    """What is played, and when."""

    orders = (Order("delay_ms", "latest_ms", "every sound would be late", strict=True),)
    path: str
    """Sound file (WAV, FLAC, ...); it is loaded at the start."""
    device: str | DeviceNumber | None = None
    """Name of the output device or a part of it, or its number; by default the
    system's."""
    gain_db: float = Field(default=0.0, ge=-120, le=60)
    """Gain. A sound that would be clipped is refused."""
    delay_ms: float = Field(default=0.0, ge=0, le=60_000)
    """0: as soon as possible. More: so long after the trigger's instant (onset or
    offset), to the sample, as far as what comes before it leaves time for that."""
    latest_ms: float = Field(default=250.0, gt=0, le=120_000)
    """A sound that cannot start so soon after the trigger's instant is not played,
    and counted as late."""
    block_ms: float = Field(default=5.0, ge=1, le=100)
    """How much sound the device asks for at a time."""


class SetOptions(Options):
    """What is set, as by the command `set` (docs/reference/control.md)."""

    model: str = "rnn_rbm"
    """Plugin name of the model, or its place in the lane's list."""
    arguments: dict[str, Any] = Field(min_length=1)
    """Options and their new values, such as `{synthesis: continue}`."""


class SayOptions(Options):
    """What is sung, as by the command `say` (docs/how-to/synthesis.md)."""

    model: str = "rnn_rbm"
    """Plugin name of the model, or its place in the lane's list."""
    units: str = Field(min_length=1, max_length=10_000)
    """Units to sing, separated by spaces."""


class TriggerOptions(Options):
    """Options of the ``trigger`` sink."""

    pattern: str
    """Units one after the other, such as `a b [c d] $`; docs/how-to/closed-loop.md."""
    name: str = Field(default="trigger", min_length=1)
    """Name in events; several triggers need several."""
    status: Literal["onset", "provisional", "final"] = "final"
    """What the last unit of a match is known by: its final label (after its offset),
    its provisional label, or nothing but its onset (the pattern then ends with `.`)."""
    posterior: float = Field(default=0.8, ge=0, le=1)
    """A label less sure than this is as good as none: only `.` matches it."""
    labels_from: str | None = None
    """The model that gives the labels, as events name it; by default the first that
    labels."""
    bout_gap_ms: float = Field(default=500.0, gt=0, le=600_000)
    """A silence that long ends a bout, and with it every unfinished match."""
    refractory_ms: float = Field(default=200.0, ge=0, le=86_400_000)
    """A match so soon after another is published, but not acted on."""
    catch_share: float = Field(default=0.0, ge=0, le=1)
    """Share of catch trials: published, but not acted on."""
    seed: int = Field(default=0, ge=-INT64_MAX, le=INT64_MAX)
    """Decides which ones are catch trials."""
    streams: list[str] | None = None
    """Streams to listen to; by default all that the sink gets."""
    play: PlayOptions | None = None
    """A sound to play."""
    set: SetOptions | None = None
    """Options of a model to set."""
    say: SayOptions | None = None
    """Units that a model sings as the answer; not with `set`."""
    log: str | None = None
    """File to which a line of JSON is appended for each trigger; `-` is
    standard output."""

    @field_validator("pattern")
    @classmethod
    def _readable(cls, text: str) -> str:
        try:
            read_pattern(text)
        except PatternError as error:
            raise ValueError(f"no pattern: {error}") from error
        return text

    @field_validator("say")
    @classmethod
    def _alone(cls, say: SayOptions | None, info: ValidationInfo) -> SayOptions | None:
        if say is not None and info.data.get("set") is not None:
            raise ValueError("'set' and 'say' are two actions: make two triggers")
        return say

    @field_validator("status")
    @classmethod
    def _possible(cls, status: str, info: ValidationInfo) -> str:
        if "pattern" not in info.data:
            return status
        pattern = read_pattern(info.data["pattern"])
        if pattern.at_end and status != "final":
            raise ValueError(
                f"a pattern that ends with $ waits for silence: status '{status}' "
                "is not possible"
            )
        if status == "onset" and not pattern.may_end_unlabelled:
            raise ValueError(
                "at an onset the unit is not known yet: with status 'onset' the "
                "pattern must end with '.'"
            )
        return status

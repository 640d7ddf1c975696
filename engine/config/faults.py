"""Options of `faults:` in a configuration: kind, start and duration of each fault."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from neurovocal.engine.contracts.options import MOST_COUNT, YEAR_S, Options, Seed


class FaultBase(Options):
    """Options that all faults have."""

    at_s: float = Field(ge=0, le=YEAR_S)
    """When it starts: seconds of the lane's audio for faults of sources and stages,
    the same place in every run; seconds since the start for all others."""
    lane: str | None = None
    """Name of the lane that it is for; default: every lane to which it applies."""
    seed: Seed = 0
    """Seed of the random numbers: delays of the bursts of `jitter`."""

    @property
    def name(self) -> str:
        """Kind of fault, as the configuration names it."""
        return str(getattr(self, "fault", ""))

    @property
    def as_text(self) -> str:
        """Kind and size of the fault, such as ``drop 0.5 s``."""
        return self.name


class LastingFault(FaultBase):
    """A fault with an end."""

    for_s: float = Field(gt=0, le=YEAR_S)
    """Seconds for which it lasts."""

    @property
    def as_text(self) -> str:
        """Kind and size of the fault."""
        return f"{self.name} {self.for_s:g} s"


class Drop(LastingFault):
    """The device loses samples and says so: a gap."""

    fault: Literal["drop"]
    """`drop`"""


class Jitter(LastingFault):
    """Blocks come late, in bursts; none is lost."""

    fault: Literal["jitter"]
    """`jitter`"""
    ms: float = Field(gt=0, le=10_000)
    """The latest that a block may come, in milliseconds."""

    @property
    def as_text(self) -> str:
        """Kind and size of the fault."""
        return f"{super().as_text}, up to {self.ms:g} ms"


class Stall(LastingFault):
    """The device answers but delivers nothing; the audio of that time is lost."""

    fault: Literal["stall"]
    """`stall`"""


class Unplug(LastingFault):
    """The device is gone, and cannot be opened before the time is over."""

    fault: Literal["unplug"]
    """`unplug`"""


class Clip(LastingFault):
    """The input is overdriven: louder samples are cut off, at full scale."""

    fault: Literal["clip"]
    """`clip`"""
    level: float = Field(default=0.1, gt=0, le=1)
    """Absolute value of a sample, as it is without the fault, that reaches full
    scale."""

    @property
    def as_text(self) -> str:
        """Kind and size of the fault."""
        return f"{super().as_text}, at {self.level:g}"


class Drift(LastingFault):
    """The device's clock is too fast or too slow."""

    fault: Literal["drift"]
    """`drift`"""
    ppm: int = Field(ge=-10_000, le=10_000)
    """How much too fast it runs, in parts per million; negative: too slow."""

    @property
    def as_text(self) -> str:
        """Kind and size of the fault."""
        return f"{super().as_text}, {self.ppm:+d} ppm"


class WrongRate(LastingFault):
    """The device delivers samples at another rate than its nominal one."""

    fault: Literal["wrong_rate"]
    """`wrong_rate`"""
    rate: int = Field(ge=1000, le=1_000_000)
    """The true rate, in Hz."""

    @property
    def as_text(self) -> str:
        """Kind and size of the fault."""
        return f"{super().as_text}, {self.rate} Hz"


class StageFault(FaultBase):
    """A fault of one stage."""

    stage: str
    """`source`, `features`, `detector`, `gate`, or the name of a plugin of the
    configuration, a model's or a sink's as a rule."""


class Crash(StageFault):
    """A stage raises an exception."""

    fault: Literal["crash"]
    """`crash`"""
    times: int = Field(default=1, ge=1, le=MOST_COUNT)
    """How many calls in a row fail."""

    @property
    def as_text(self) -> str:
        """Kind and size of the fault."""
        return f"crash of {self.stage}" + (f" x {self.times}" if self.times > 1 else "")


class Hang(StageFault, LastingFault):
    """A call of a stage does not return."""

    fault: Literal["hang"]
    """`hang`"""

    @property
    def as_text(self) -> str:
        """Kind and size of the fault."""
        return f"hang of {self.stage} {self.for_s:g} s"


class DiskFull(LastingFault):
    """No file of this process can be written to (RLIMIT_FSIZE)."""

    fault: Literal["disk_full"]
    """`disk_full`"""


class SubscriberStall(LastingFault):
    """A subscriber that does not read is connected to each ZeroMQ sink."""

    fault: Literal["subscriber_stall"]
    """`subscriber_stall`"""
    keys: str | None = None
    """Folder of keys of a client that may listen, where the engine has keys."""


class NetworkCut(LastingFault):
    """Connections to the sinks' TCP endpoints break, and new ones are refused."""

    fault: Literal["network_cut"]
    """`network_cut`"""


class Kill(FaultBase):
    """The process is killed at once (SIGKILL)."""

    fault: Literal["kill"]
    """`kill`"""


SourceFault: TypeAlias = Drop | Jitter | Stall | Unplug | Clip | Drift | WrongRate
ClockFault: TypeAlias = DiskFull | SubscriberStall | NetworkCut | Kill
Fault: TypeAlias = Annotated[
    SourceFault | Crash | Hang | ClockFault, Field(discriminator="fault")
]

# Faults in time: they do not apply where audio waits for its reader.
LIVE_FAULTS = (Jitter, Stall, Unplug, Drift)


def fault_texts(faults: Sequence[FaultBase]) -> list[str]:
    """Return kind, size, start and lane of each fault as text."""
    return [
        f"{fault.as_text} at {fault.at_s:g} s"
        + ("" if fault.lane is None else f" in lane '{fault.lane}'")
        for fault in faults
    ]

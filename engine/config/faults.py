"""`faults:` in a configuration: what is to go wrong, when and for how long."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from neurovocal.engine.contracts.options import Options


class AnyFault(Options):
    """What all faults have in common."""

    at_s: float = Field(ge=0)
    """When it strikes: seconds of the lane's audio for faults of sources and stages,
    the same place in every run; seconds since the start for all others."""
    lane: str | None = None
    """Name of the lane that it is for; default: every lane where it can strike."""
    seed: int = Field(default=0, ge=0)
    """Seed of what is drawn by chance: how late the bursts of `jitter` are."""

    @property
    def name(self) -> str:
        """What kind of fault it is."""
        return str(getattr(self, "fault", ""))

    @property
    def words(self) -> str:
        """The fault in a few words, such as ``drop 0.5 s``."""
        return self.name


class LastingFault(AnyFault):
    """A fault with an end."""

    for_s: float = Field(gt=0)
    """Seconds for which it lasts."""

    @property
    def words(self) -> str:
        """The fault in a few words."""
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
    def words(self) -> str:
        """The fault in a few words."""
        return f"{super().words}, up to {self.ms:g} ms"


class Stall(LastingFault):
    """The device answers but brings nothing; what was to be heard meanwhile is lost."""

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
    def words(self) -> str:
        """The fault in a few words."""
        return f"{super().words}, at {self.level:g}"


class Drift(LastingFault):
    """The device's clock runs off."""

    fault: Literal["drift"]
    """`drift`"""
    ppm: int = Field(ge=-10_000, le=10_000)
    """How much too fast it runs, in parts per million; negative: too slow."""

    @property
    def words(self) -> str:
        """The fault in a few words."""
        return f"{super().words}, {self.ppm:+d} ppm"


class WrongRate(LastingFault):
    """The device brings samples at another rate than it says."""

    fault: Literal["wrong_rate"]
    """`wrong_rate`"""
    rate: int = Field(ge=1000, le=1_000_000)
    """The rate at which it does, in Hz."""

    @property
    def words(self) -> str:
        """The fault in a few words."""
        return f"{super().words}, {self.rate} Hz"


class StageFault(AnyFault):
    """A fault of one stage."""

    stage: str
    """`source`, `features`, `detector`, `gate`, or the name of a plugin of the
    configuration, a model's or a sink's as a rule."""


class Crash(StageFault):
    """A stage raises an exception."""

    fault: Literal["crash"]
    """`crash`"""
    times: int = Field(default=1, ge=1)
    """How many calls in a row fail."""

    @property
    def words(self) -> str:
        """The fault in a few words."""
        return f"crash of {self.stage}" + (f" x {self.times}" if self.times > 1 else "")


class Hang(StageFault, LastingFault):
    """A call of a stage does not return."""

    fault: Literal["hang"]
    """`hang`"""

    @property
    def words(self) -> str:
        """The fault in a few words."""
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


class Kill(AnyFault):
    """The process is killed at once (SIGKILL)."""

    fault: Literal["kill"]
    """`kill`"""


SourceFault: TypeAlias = Drop | Jitter | Stall | Unplug | Clip | Drift | WrongRate
ClockFault: TypeAlias = DiskFull | SubscriberStall | NetworkCut | Kill
Fault: TypeAlias = Annotated[
    SourceFault | Crash | Hang | ClockFault, Field(discriminator="fault")
]

# Where audio waits for its reader, time does not pass by itself: none of these is.
LIVE_ONLY = (Jitter, Stall, Unplug, Drift)


def listed(faults: Sequence[AnyFault]) -> list[str]:
    """Each fault in a few words."""
    return [
        f"{fault.words} at {fault.at_s:g} s"
        + ("" if fault.lane is None else f" in lane '{fault.lane}'")
        for fault in faults
    ]

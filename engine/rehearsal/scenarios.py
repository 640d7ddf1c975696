"""Which faults are rehearsed with a configuration, when each strikes, for how long."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.text import did_you_mean

FAULTS = (
    *("drop", "jitter", "stall", "unplug", "clip", "drift", "wrong_rate", "crash"),
    *("hang", "disk_full", "subscriber_stall", "network_cut", "kill"),
)
NONE = "none"
# Of the audio before a fault: enough to know how it is without.
_EARLIEST_S, _LATEST_S = 4.0, 6.0
_AFTER_S = 6.0
DRIFT_PPM = 500.0
LONGEST_S = 60.0  # seconds of audio after which drift can be told from jitter
# The user's own limits may be minutes: what they do is seen as well with short ones.
_HANG_S = 3.0
_RATE_WINDOW_S = 5.0
# A hang goes on for so long after it has been noticed.
_BEYOND_HANG_S = 4.0


@dataclass(frozen=True, slots=True)
class Stages:
    """What a configuration has that can fail.

    Parameters
    ----------
    lane, sinks : tuple of str
        Names of features, detector, gate and models; of sinks.
    hang_s : float or None
        After which a call counts as hanging; None: never.
    on_disk : bool
        Whether a sink writes files.
    socket : str or None
        Endpoint of a sink that publishes labels, if there is one.
    tape_rate : int
        Of the recording, in Hz.
    loud : float
        Absolute value that a tenth of the recording's samples exceeds.
    """

    lane: tuple[str, ...]
    sinks: tuple[str, ...]
    hang_s: float | None
    on_disk: bool
    socket: str | None
    tape_rate: int
    loud: float = 0.1


@dataclass(frozen=True, slots=True)
class Exercise:
    """One fault, and how it is rehearsed.

    Parameters
    ----------
    fault : str
        Kind of fault; `NONE` for a run without any.
    stage : str
        The stage that it strikes, for faults of stages.
    at_s, for_s : float
        When, and for how long.
    options : dict
        Further options of the fault.
    changes : dict
        Values of the configuration that are other ones for this exercise.
    lasts : bool
        Whether it goes on until the end.
    of_sink : bool
        Whether the stage is a sink: then the lane itself is whole.
    """

    fault: str
    at_s: float = 0.0
    for_s: float = 0.0
    stage: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[tuple[str, str], Any] = field(default_factory=dict)
    lasts: bool = False
    of_sink: bool = False

    @property
    def name(self) -> str:
        """What stands in the table."""
        return f"{self.fault} {self.stage}".strip()

    @property
    def end_s(self) -> float:
        """When the fault is over."""
        return self.at_s + self.for_s

    def seconds(self, asked_s: float) -> float:
        """Seconds of audio that it needs."""
        return max(asked_s, LONGEST_S if self.lasts else self.end_s + _AFTER_S)

    def faults(self) -> list[dict[str, Any]]:
        """What stands in the configuration under ``faults``."""
        if self.fault == NONE:
            return []
        fault: dict[str, Any] = {"fault": self.fault, "at_s": round(self.at_s, 3)}
        if self.for_s:
            fault["for_s"] = self.for_s
        if self.stage:
            fault["stage"] = self.stage
        return [{**fault, **self.options}]


def chosen(only: str | None) -> list[str]:
    """Kinds of faults that were asked for.

    Raises
    ------
    ConfigError
        There is no such fault.
    """
    if only is None:
        return [NONE, *FAULTS]
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [NONE, *FAULTS]
    problems = [
        f"--only: there is no fault '{name}' ({did_you_mean(name, known)})"
        for name in names
        if name not in known
    ]
    if not names:
        problems.append(f"--only names no fault (known: {', '.join(known)})")
    if problems:
        raise ConfigError(problems)
    return [name for name in known if name in names]


def exercises(
    names: Sequence[str], stages: Stages, seed: int
) -> tuple[list[Exercise], dict[str, str]]:
    """Exercises of each kind, and why there are none of some.

    Parameters
    ----------
    names : sequence of str
        From `chosen`.
    stages : Stages
        What there is to fail.
    seed : int
        Decides when each fault strikes.
    """
    found: list[Exercise] = []
    absent: dict[str, str] = {}
    for name in names:
        # Each kind has a seed of its own: alone it strikes when it does among others.
        rng = Random(f"{seed} {name}")
        if name == "disk_full" and not stages.on_disk:
            absent[name] = "no sink writes files"
        elif name in ("subscriber_stall", "network_cut") and stages.socket is None:
            absent[name] = "no sink publishes on a socket"
        elif name == "network_cut" and not str(stages.socket).startswith("tcp:"):
            absent[name] = "the socket is on this machine alone (ipc)"
        elif name == "hang" and stages.hang_s is None:
            absent[name] = "supervise.hang_s is null: whatever hangs is waited for"
        else:
            found += _of_kind(name, stages, rng)
    return found, absent


def _of_kind(name: str, stages: Stages, rng: Random) -> Iterator[Exercise]:
    def at_s() -> float:
        return round(rng.uniform(_EARLIEST_S, _LATEST_S), 2)

    every = dict.fromkeys(("source", *stages.lane, *stages.sinks))
    rate_window = {("signal", "rate_window_s"): _RATE_WINDOW_S}
    match name:
        case "drop":
            yield Exercise(name, at_s(), 0.5)
        case "jitter":
            yield Exercise(name, at_s(), 5.0, options={"ms": 300})
        case "stall" | "unplug":
            yield Exercise(name, at_s(), 3.0)
        case "clip":
            yield Exercise(name, at_s(), 6.0, options={"level": stages.loud})
        case "drift":
            options = {"ppm": DRIFT_PPM}
            yield Exercise(name, 0.0, 1000.0, options=options, lasts=True)
        case "wrong_rate":
            rate = round(stages.tape_rate * 44_100 / 48_000)
            options = {"rate": rate}
            yield Exercise(name, at_s(), 12.0, options=options, changes=rate_window)
        case "crash":
            for stage in every:
                yield Exercise(
                    name,
                    at_s(),
                    stage=stage,
                    options={"times": 3},
                    of_sink=stage in stages.sinks,
                )
        case "hang":
            assert stages.hang_s is not None
            hang_s = min(stages.hang_s, _HANG_S)
            changes: dict[tuple[str, str], Any] = {("supervise", "hang_s"): hang_s}
            for stage in dict.fromkeys((stages.lane[-1], *stages.sinks)):
                yield Exercise(
                    name,
                    at_s(),
                    hang_s + _BEYOND_HANG_S,
                    stage,
                    changes=changes,
                    of_sink=stage in stages.sinks,
                )
        case "disk_full":
            yield Exercise(name, at_s(), 4.0)
        case "subscriber_stall":
            yield Exercise(name, at_s(), 8.0)
        case "network_cut":
            yield Exercise(name, at_s(), 2.0)
        case _:
            yield Exercise(name, at_s() if name != NONE else 0.0)

"""Fault scenarios of a rehearsal: which faults, when they start, how long they last."""

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
NO_FAULT = "none"
# Seconds of audio before a fault: enough to compare with what follows.
_EARLIEST_S, _LATEST_S = 4.0, 6.0
_AFTER_S = 6.0
DRIFT_PPM = 500.0
LONGEST_S = 60.0  # seconds of audio after which drift can be told from jitter
# The configuration's own limits may be minutes: short ones show as much.
_HANG_S = 3.0
_RATE_WINDOW_S = 5.0
# Seconds by which a hang outlasts the limit at which it is noticed.
_BEYOND_HANG_S = 4.0


@dataclass(frozen=True, slots=True)
class FaultTargets:
    """Parts of a configuration in which faults can be injected.

    Parameters
    ----------
    lane, sinks : tuple of str
        Names of features, detector, gate and models; names of sinks.
    hang_s : float or None
        Seconds after which a call counts as hanging; None: never.
    on_disk : bool
        Whether a sink writes files.
    socket : str or None
        Endpoint of a sink that publishes labels, if there is one.
    recording_rate : int
        Sample rate of the recording, in Hz.
    loud_level : float
        Absolute value that a tenth of the recording's samples exceeds.
    """

    lane: tuple[str, ...]
    sinks: tuple[str, ...]
    hang_s: float | None
    on_disk: bool
    socket: str | None
    recording_rate: int
    loud_level: float = 0.1


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault and the conditions under which it is rehearsed.

    Parameters
    ----------
    fault : str
        Kind of fault; `NO_FAULT` for a run without any.
    stage : str
        Name of the stage that fails, for faults of stages.
    at_s, for_s : float
        When the fault starts and how long it lasts, in seconds.
    options : dict
        Further options of the fault.
    changes : dict
        Values of the configuration that differ in this scenario, by section and key.
    lasts_to_end : bool
        Whether the fault lasts until the end of the trial.
    is_sink_fault : bool
        Whether the stage is a sink: then the lane itself loses nothing.
    """

    fault: str
    at_s: float = 0.0
    for_s: float = 0.0
    stage: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[tuple[str, str], Any] = field(default_factory=dict)
    lasts_to_end: bool = False
    is_sink_fault: bool = False

    @property
    def name(self) -> str:
        """Name in the table: the fault and its stage."""
        return f"{self.fault} {self.stage}".strip()

    @property
    def end_s(self) -> float:
        """Seconds of audio after which the fault is over."""
        return self.at_s + self.for_s

    def seconds(self, asked_s: float) -> float:
        """Return the seconds of audio to play, at least `asked_s`."""
        return max(asked_s, LONGEST_S if self.lasts_to_end else self.end_s + _AFTER_S)

    def faults(self) -> list[dict[str, Any]]:
        """Return the value of ``faults`` in the configuration."""
        if self.fault == NO_FAULT:
            return []
        fault: dict[str, Any] = {"fault": self.fault, "at_s": round(self.at_s, 3)}
        if self.for_s:
            fault["for_s"] = self.for_s
        if self.stage:
            fault["stage"] = self.stage
        return [{**fault, **self.options}]


def parse_fault_names(only: str | None) -> list[str]:
    """Return the kinds of faults that ``--only`` names, in their order; all for None.

    Raises
    ------
    ConfigError
        There is no such fault.
    """
    if only is None:
        return [NO_FAULT, *FAULTS]
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [NO_FAULT, *FAULTS]
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


def make_scenarios(
    names: Sequence[str], targets: FaultTargets, seed: int
) -> tuple[list[Scenario], dict[str, str]]:
    """Return scenarios of each kind, and why some kinds have none.

    Parameters
    ----------
    names : sequence of str
        Kinds of faults, from `parse_fault_names`.
    targets : FaultTargets
        Parts of the configuration that can fail.
    seed : int
        Seed of the times at which the faults start.

    Returns
    -------
    list of Scenario
        At least one of each kind that has a target.
    dict of str to str
        For each of the other kinds the reason.
    """
    found: list[Scenario] = []
    absent: dict[str, str] = {}
    for name in names:
        # Each kind has a seed of its own: its times do not depend on the other kinds.
        rng = Random(f"{seed} {name}")
        if name == "disk_full" and not targets.on_disk:
            absent[name] = "no sink writes files"
        elif name in ("subscriber_stall", "network_cut") and targets.socket is None:
            absent[name] = "no sink publishes on a socket"
        elif name == "network_cut" and not str(targets.socket).startswith("tcp:"):
            absent[name] = "the socket is on this machine alone (ipc)"
        elif name == "hang" and targets.hang_s is None:
            absent[name] = "supervise.hang_s is null: whatever hangs is waited for"
        else:
            found += _of_kind(name, targets, rng)
    return found, absent


def _of_kind(name: str, targets: FaultTargets, rng: Random) -> Iterator[Scenario]:
    def at_s() -> float:
        return round(rng.uniform(_EARLIEST_S, _LATEST_S), 2)

    every = dict.fromkeys(("source", *targets.lane, *targets.sinks))
    rate_window = {("signal", "rate_window_s"): _RATE_WINDOW_S}
    match name:
        case "drop":
            yield Scenario(name, at_s(), 0.5)
        case "jitter":
            yield Scenario(name, at_s(), 5.0, options={"ms": 300})
        case "stall" | "unplug":
            yield Scenario(name, at_s(), 3.0)
        case "clip":
            yield Scenario(name, at_s(), 6.0, options={"level": targets.loud_level})
        case "drift":
            options = {"ppm": DRIFT_PPM}
            yield Scenario(name, 0.0, 1000.0, options=options, lasts_to_end=True)
        case "wrong_rate":
            rate = round(targets.recording_rate * 44_100 / 48_000)
            options = {"rate": rate}
            yield Scenario(name, at_s(), 12.0, options=options, changes=rate_window)
        case "crash":
            for stage in every:
                yield Scenario(
                    name,
                    at_s(),
                    stage=stage,
                    options={"times": 3},
                    is_sink_fault=stage in targets.sinks,
                )
        case "hang":
            assert targets.hang_s is not None
            hang_s = min(targets.hang_s, _HANG_S)
            changes: dict[tuple[str, str], Any] = {("supervise", "hang_s"): hang_s}
            for stage in dict.fromkeys((targets.lane[-1], *targets.sinks)):
                yield Scenario(
                    name,
                    at_s(),
                    hang_s + _BEYOND_HANG_S,
                    stage,
                    changes=changes,
                    is_sink_fault=stage in targets.sinks,
                )
        case "disk_full":
            yield Scenario(name, at_s(), 4.0)
        case "subscriber_stall":
            yield Scenario(name, at_s(), 8.0)
        case "network_cut":
            yield Scenario(name, at_s(), 2.0)
        case _:
            yield Scenario(name, at_s() if name != NO_FAULT else 0.0)

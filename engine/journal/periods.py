"""Result of a summary: counts by period, activity over the day, outages, runs."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(slots=True)
class Period:
    """Counts of an hour, of a day, or of everything.

    Parameters
    ----------
    start : str or None
        Its beginning, ISO 8601 with the offset of the time zone; None: of everything,
        or of streams whose time is not known (recordings without a date).
    heard_s : float
        Seconds of audio that were processed, all streams together.
    lost_s : float
        Seconds that were lost in gaps.
    withheld_s : float
        Seconds that privacy kept from all sinks; they were heard.
    segments : int
        Segments that ended, by the time of their onset.
    unlabelled : int
        Those of them without a final label.
    near_misses : int
        Sounds close to the threshold, those that were too many to tell included.
    units : dict of str to int
        Final labels of each unit.
    """

    start: str | None
    heard_s: float = 0.0
    lost_s: float = 0.0
    withheld_s: float = 0.0
    segments: int = 0
    unlabelled: int = 0
    near_misses: int = 0
    units: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Activity:
    """One of the 24 hours of the day, all days together.

    Parameters
    ----------
    hour : int
        0 to 23, in the time zone of the summary.
    heard_s : float
        Seconds of audio that were processed in this hour.
    segments : int
        Segments whose onset lies in it.
    """

    hour: int
    heard_s: float = 0.0
    segments: int = 0


@dataclass(frozen=True, slots=True)
class Outage:
    """Interval without audio: lost, between two runs, or withheld.

    Parameters
    ----------
    reason : str
        Reason of a gap, ``withheld: REASON``, ``killed`` (from the last event of a
        killed run to the next run) or ``not running`` (between runs).
    run, stream : str
        Where; the stream of a time between runs is empty.
    start : str or None
        UTC, ISO 8601; None where it is not known.
    sample : int or None
        First sample in the stream; None between runs.
    seconds : float
        Its duration.
    """

    reason: str
    run: str
    stream: str
    start: str | None
    sample: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run.

    Parameters
    ----------
    run : str
        Its name.
    started : str
        Time of the machine at its start, UTC.
    ended : str or None
        Time at which it ended in order.
    state : {'ended', 'killed', 'open'}
        ``open``: the newest run, which still lasts or was killed.
    removed : int
        Events that the journal has removed because of their age or its size.
    """

    run: str
    started: str
    ended: str | None
    state: Literal["ended", "killed", "open"]
    removed: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a journal by hour or day, and its outages.

    Parameters
    ----------
    by : {'hour', 'day'}
        Length of the periods.
    timezone : str
        Name of the time zone of `periods` and `activity`.
    total : Period
        Everything.
    periods : list of Period
        Hours or days in which something was heard or lost, in order of time; the one
        without a time comes last.
    activity : list of Activity
        The 24 hours of the day.
    streams : dict of str to Period
        Counts of each stream.
    outages : list of Outage
        Those of a second and more, in order of writing; the longest of each journal
        if there are more than 1000.
    lost : dict of str to (int, float)
        Number and seconds of all outages by reason, the short ones included.
    runs : list of RunSummary
        The runs, the oldest first.
    """

    by: Literal["hour", "day"]
    timezone: str
    total: Period
    periods: list[Period]
    activity: list[Activity]
    streams: dict[str, Period]
    outages: list[Outage]
    lost: dict[str, tuple[int, float]]
    runs: list[RunSummary]

    def units(self) -> list[str]:
        """Return all units, the most frequent first, by name where they are equal."""
        counts = self.total.units
        return sorted(counts, key=lambda unit: (-counts[unit], unit))

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as values of JSON; seconds have three digits."""
        rounded: dict[str, Any] = _rounded(asdict(self))
        return rounded


def _rounded(value: Any) -> Any:
    """Round all numbers of nested values to three digits; keys stay."""
    if isinstance(value, float):
        return round(value, 3) + 0.0  # no -0.0
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value

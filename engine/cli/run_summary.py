"""Summary of a run at its end: minutes, labels, losses, files, next commands."""

from collections import Counter
from collections.abc import Iterable
from threading import Lock

from neurovocal.engine.config.plan import Plan
from neurovocal.engine.contracts.types import Gap, Label, Message, NearMiss, Offset
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.support.text import printable

_WIDTH = 80
_MOST_UNITS = 12
_NEXT = (
    ("neurovocal run microphone", "listen to a sound card"),
    ("neurovocal label FILES --bundle bengalese-finch", "label recordings"),
    ("neurovocal train FOLDER --out my-bird", "train your own bundle"),
)


class RunTally:
    """Counts of a run that its messages tell."""

    def __init__(self) -> None:
        self.segments = self.near_misses = 0
        self.units: Counter[str] = Counter()
        self.gaps: Counter[str] = Counter()
        self.lost_s = 0.0
        self._lock = Lock()

    def add(self, message: Message) -> None:
        """Count a message of any kind."""
        event = message.event
        with self._lock:
            if isinstance(event, Offset):
                self.segments += 1
            elif isinstance(event, Label):
                self.units[event.unit] += event.status == "final"
            elif isinstance(event, NearMiss):
                self.near_misses += 1 + event.omitted
            elif isinstance(event, Gap) and event.stop > event.start:
                self.gaps[event.reason] += 1
                self.lost_s += (event.stop - event.start) / message.info.sample_rate


def summary_lines(
    outcome: Outcome, tally: RunTally, plan: Plan, *, is_demo: bool
) -> list[str]:
    """Return the summary of a run, in lines of at most 80 characters.

    Parameters
    ----------
    outcome : Outcome
        Of the run.
    tally : RunTally
        What it published.
    plan : Plan
        Its plan: which files it wrote.
    is_demo : bool
        Whether it was the recording that ships: what to try next is said.
    """
    units = Counter({unit: n for unit, n in tally.units.items() if n})
    counts = [f"{tally.segments:,} segment{'s' * (tally.segments != 1)}"]
    if any(lane.models for lane in plan.lanes):
        counts.append(f"{units.total():,} label{'s' * (units.total() != 1)}")
    if tally.near_misses:
        counts.append(f"{tally.near_misses:,} near misses")
    first = "stopped: heard" if outcome.cut_short else "heard"
    lines = [f"{first} {_duration(outcome.seconds)}: {', '.join(counts)}"]
    if units:
        lines += _wrapped(f"{unit} {n}" for unit, n in units.most_common(_MOST_UNITS))
        if more := len(units) - _MOST_UNITS:
            lines += [f"  and {more} rarer units"] if more > 0 else []
    if tally.gaps:
        reasons = ", ".join(f"{n} {reason}" for reason, n in tally.gaps.most_common())
        lines.append(f"gaps: {reasons}; {_duration(tally.lost_s)} lost")
    if outcome.dropped:
        lines.append(f"messages dropped by full queues: {outcome.dropped.total():,}")
    for plugin, path in written_paths(plan):
        hint = f" (neurovocal summary {path})" if plugin == "journal" else ""
        lines.append(f"{plugin} '{path}'{hint}")
    if is_demo:
        width = max(len(command) for command, _ in _NEXT)
        lines += ["next:", *(f"  {a:<{width}}  {b}" for a, b in _NEXT)]
    return [printable(line) for line in lines]


def written_paths(plan: Plan) -> list[tuple[str, str]]:
    """Return the plugin and the path of each sink that writes files."""
    found = []
    for sink in plan.all_sinks:
        path = sink.stage.config.options.get("path")
        if isinstance(path, str) and path not in ("", "-", "/dev/null"):
            found.append((sink.stage.config.plugin, path))
    return found


def _wrapped(words: Iterable[str]) -> list[str]:
    """Return words in indented lines."""
    lines, line = [], " "
    for word in words:
        if len(line) + len(word) + 2 > _WIDTH:
            lines.append(line)
            line = " "
        line += f" {word} "
    return [*lines, line.rstrip()]


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole // 60 % 60} min"

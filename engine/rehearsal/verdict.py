"""Whether a configuration survived a fault, and if not, why."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal, TypeAlias

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_LOSS
from neurovocal.engine.rehearsal.comparison import (
    Comparison,
    Sound,
    compare,
    displacement,
    in_spans,
    overlap,
)
from neurovocal.engine.rehearsal.evidence import Evidence
from neurovocal.engine.rehearsal.trial import key_of

BLOCK_S = 0.01  # by so much a gap may be off: one block of the playback
_LATE_MS = 50.0  # what one subscriber may cost another

# An estimate of drift settles slowly: within a minute it is at least this share of the
# true one, and never far above it.
_LEAST_DRIFT, _MOST_DRIFT = 0.25, 1.5


def untold(evidence: Evidence) -> Iterator[str]:
    """What should have been told of a fault and was not, or was told wrongly.

    Yields
    ------
    str
        One sentence each.
    """
    exercise = evidence.exercise
    ended = len(evidence.record.exits) > 1
    match exercise.fault:
        case "drop" | "stall":
            yield from _gap_of(evidence, exercise.for_s)
        case "unplug":
            yield from _gap_of(evidence, None)
        case "none" | "jitter" if evidence.gaps():
            yield "samples were lost"
        case "clip" if "degraded" not in evidence.states("signal clipped"):
            yield "nothing told that the signal is clipped"
        case "wrong_rate" if not (
            "degraded" in evidence.states("signal rate") or evidence.gaps()
        ):
            yield "nothing told that the rate is wrong"
        case "drift":
            yield from _drift(evidence)
        case "crash" | "hang" if not (ended or evidence.states(exercise.stage)):
            yield f"nothing told that '{exercise.stage}' failed"
        case "disk_full":
            yield from _disk(evidence)
        case "subscriber_stall":
            yield from _lateness(evidence)


def _gap_of(evidence: Evidence, seconds: float | None) -> Iterator[str]:
    """Whether gaps were told, in each stream of the right length if that is known."""
    lost_s = evidence.lost_s()
    if max(lost_s.values(), default=0.0) <= 0:
        yield "no gap was told"
    elif seconds is not None:
        for stream, told_s in lost_s.items():
            if abs(told_s - seconds) > BLOCK_S:
                yield (
                    f"'{stream}': gaps of {told_s:.3f} s were told, {seconds:g} s "
                    "were lost"
                )


def _drift(evidence: Evidence) -> Iterator[str]:
    true, found = float(evidence.exercise.options["ppm"]), evidence.drift_ppm()
    if found is None:
        yield "no drift was told"
    elif not _LEAST_DRIFT <= found / true <= _MOST_DRIFT:
        yield f"a drift of {found:+.0f} ppm was told"


def _disk(evidence: Evidence) -> Iterator[str]:
    if not evidence.states("sink"):
        yield "nothing told that the disk is full"
    if evidence.record.journal is not None:
        over = evidence.over()
        if not any(each.sound.onset > over for each in evidence.kept()):
            yield "the journal did not go on afterwards"


def _lateness(evidence: Evidence) -> Iterator[str]:
    """Whether the one that does not read makes the other's messages late."""
    late = _late_ms(evidence)
    if late is not None and late > _LATE_MS:
        yield f"the other subscriber's messages came {late:.0f} ms later (median)"


def _late_ms(evidence: Evidence) -> float | None:
    """Median of ms from engine to subscriber while the fault lasted, above before."""
    sent = {key_of(one.run, one.header): one.heard_ns for one in evidence.record.told}
    begin = evidence.exercise.at_s * evidence.sample_rate
    apart: dict[bool, list[float]] = {False: [], True: []}
    for at, message in evidence.record.received or ():
        told_ns = sent.get(key_of(message.run, message.header))
        if told_ns is not None:
            apart[message.at >= begin].append((at - told_ns) / 1e6)
    if not apart[True] or not apart[False]:
        return None
    return median(apart[True]) - median(apart[False])


Verdict: TypeAlias = Literal["survived", "survived with told loss", "FAILED"]
TOLERANCE_S = 0.02

# Sounds so near to a damaged span may come out otherwise: a detector looks ahead, and
# after a gap it learns the background anew, as models do their state.
BEFORE_S, AFTER_S = 0.3, 2.0

# For so long after a damaged span a sound may come with other bounds or another unit.
AFTERMATH_S = 10.0
_REACH_S = 0.1  # how far a displaced sound is looked for


@dataclass(slots=True)
class Row:
    """A line of the table.

    Parameters
    ----------
    fault : str
        What was rehearsed.
    injected : str
        When and how much, in words.
    said : list of str
        What the engine told.
    recovered_s : float or None
        How much later than without the fault the reader had the first sound after it.
    reader : str
        Who was to have the sounds: ``subscriber``, ``journal`` or ``sinks``.
    expected, received, kept, told, changed, lost, double : int
        Sounds; of those that were not received, `kept` are in the journal, `told` are
        lost, which was told, and `changed` came with other bounds or another unit.
    verdict : str
    why : list of str
        What was wrong.
    """

    fault: str
    injected: str
    said: list[str] = field(default_factory=list)
    recovered_s: float | None = None
    reader: str = "subscriber"
    expected: int = 0
    received: int = 0
    kept: int = 0
    told: int = 0
    changed: int = 0
    lost: int = 0
    double: int = 0
    verdict: Verdict = "survived"
    why: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def judge(
    evidence: Evidence, truth: Sequence[Sound], reader: str, resumes: bool
) -> Row:
    """Hold what came against what should have come, and what was told against both.

    Parameters
    ----------
    evidence : Evidence
        Of one exercise.
    truth : sequence of Sound
        Of the undisturbed recording; empty: sounds are not compared.
    reader : str
        Who is to have the sounds.
    resumes : bool
        Whether a subscriber can get back what it missed.
    """
    exercise, record = evidence.exercise, evidence.record
    row = Row(exercise.name, words_of(evidence), evidence.said(), reader=reader)
    row.why += record.trouble
    if not evidence.struck():
        row.why.append("the fault did not strike: the run ended before")
    if truth:
        _compare(evidence, truth, row)
        if resumes and row.kept:
            row.why.append(f"the subscriber did not get back {row.kept}")
    row.why += list(_process(evidence))
    row.why += list(untold(evidence))
    if row.why:
        row.verdict = "FAILED"
    elif row.told or row.changed:
        row.verdict = "survived with told loss"
    return row


def words_of(evidence: Evidence) -> str:
    """When a fault struck and how much, in words."""
    exercise = evidence.exercise
    if exercise.fault == "none":
        return f"nothing, {evidence.record.seconds:.0f} s"
    if exercise.fault == "drift":
        return f"{exercise.options['ppm']:+g} ppm throughout"
    words = f"at {exercise.at_s:.1f} s"
    if exercise.for_s:
        words += f" for {exercise.for_s:g} s"
    extra = {"rate": "{} Hz", "ms": "up to {} ms late", "times": "{} calls"}
    for name, text in extra.items():
        if name in exercise.options:
            words += ", " + text.format(exercise.options[name])
    return words


def _compare(evidence: Evidence, truth: Sequence[Sound], row: Row) -> None:
    rate, record = evidence.sample_rate, evidence.record
    received = evidence.received()
    kept = evidence.kept()
    if row.reader == "journal":
        received, kept = kept, []
    elif row.reader == "sinks":
        received = evidence.sent()
    first = _heard_from(evidence)
    last = round(record.seconds * rate)
    expected = [s for s in truth if s.onset >= first and s.offset <= last]
    spans, missing = evidence.told_spans(), evidence.known_missing()
    before, after = round(BEFORE_S * rate), round(AFTER_S * rate)
    tolerance = round(TOLERANCE_S * rate)

    def is_told(sound: Sound) -> bool:
        if in_spans(sound, spans, before, after):
            return True
        # What was sent in its place, be it with other bounds, is known to be missing.
        return any(overlap(sound, each) for each in missing)

    def may_change(sound: Sound) -> bool:
        aftermath = round(AFTERMATH_S * rate)
        return evidence.retimed or in_spans(sound, spans, before, aftermath)

    result = compare(expected, received, kept, tolerance, is_told, may_change)
    row.expected = result.expected
    row.received, row.kept = len(result.received), len(result.kept)
    row.told, row.changed = len(result.told), len(result.changed)
    row.lost, row.double = len(result.lost), result.double
    row.recovered_s = _recovered_s(evidence, expected)
    row.why += list(_sounds_wrong(evidence, result))
    if record.journal is not None:
        held = compare(expected, evidence.kept(), [], tolerance, is_told, may_change)
        if held.lost:
            lack = f"the journal lacks {len(held.lost)} of {row.expected}"
            # What a sink loses while it fails itself is counted and told.
            mine = evidence.exercise.stage == "journal"
            (row.said if mine else row.why).append(lack)
    after_it = [s for s in expected if s.onset > evidence.over() + after]
    off = displacement(after_it, received, round(_REACH_S * rate))
    if off is not None and abs(off) > BLOCK_S * rate:
        row.why.append(f"what follows is {off / rate * 1000:+.0f} ms out of its place")


def _heard_from(evidence: Evidence) -> int:
    """Where the reader's time begins: a late subscriber cannot have what was before."""
    messages = evidence.record.received
    if not messages:
        return 0
    if any(message.replayed for _, message in messages):
        return 0
    first = messages[0][1]
    seconds = first.header.at / first.sample_rate
    return round(max(0.0, seconds - 1.0 / evidence.sample_rate) * evidence.sample_rate)


def _recovered_s(evidence: Evidence, expected: Sequence[Sound]) -> float | None:
    """How much later than undisturbed the first sound after the fault came."""
    if evidence.exercise.fault in ("none", "drift"):
        return None
    over = evidence.over()
    due = min((sound.offset for sound in expected if sound.offset > over), default=None)
    came = [at for each, at in evidence.arrivals() if each.sound.offset > over]
    if due is None or not came:
        return None
    return round(max(0, min(came) - evidence.played_ns(due)) / NS, 2)


def _sounds_wrong(evidence: Evidence, result: Comparison) -> Iterator[str]:
    what = "labels" if evidence.labelled else "segments"
    if not result.received:
        yield f"none of {result.expected} {what} was received"
    elif result.lost:
        first = min(sound.onset for sound in result.lost) / evidence.sample_rate
        yield (
            f"{len(result.lost)} {what} lost without a word, the first at {first:.1f} s"
        )
    if result.double:
        yield f"{result.double} {what} came twice"


def _process(evidence: Evidence) -> Iterator[str]:
    """What is wrong with how the process ended."""
    exits = evidence.record.exits
    if exits and exits[-1] not in (EXIT_CLEAN, EXIT_LOSS):
        said = evidence.record.said[-1:] or [""]
        yield f"the run ended with code {exits[-1]}: {said[0]}"
    if len(exits) > 2:
        yield f"the engine ended {len(exits) - 1} times for one fault"

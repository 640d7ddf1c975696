"""What an engine must say of each fault: silence is a failure, a wrong word is, too."""

from collections.abc import Iterator
from statistics import median

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

"""Verdict on a trial: whether the configuration survived the fault, and why not."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal, TypeAlias

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_LOSS
from neurovocal.engine.rehearsal.comparison import (
    Comparison,
    Vocalization,
    compare,
    displacement,
    overlaps,
    touches_spans,
)
from neurovocal.engine.rehearsal.evidence import TrialEvidence
from neurovocal.engine.rehearsal.scenarios import NO_FAULT
from neurovocal.engine.rehearsal.trial import message_key

TrialVerdict: TypeAlias = Literal["survived", "survived with told loss", "FAILED"]

BLOCK_S = 0.01  # by so much a gap may be off: one block of the playback
_LATE_MS = 50.0  # delay that one subscriber may cause for another
# An estimate of drift converges slowly: within a minute it is at least this share of
# the true one, and never far above it.
_LEAST_DRIFT, _MOST_DRIFT = 0.25, 1.5
TOLERANCE_S = 0.02
# Vocalizations so near to a damaged span may be missing or different: a detector looks
# ahead, and after a gap it learns the background again, as models do their state.
BEFORE_S, AFTER_S = 0.3, 2.0
# So long after a damaged span one may have other bounds or another unit.
AFTERMATH_S = 10.0
_REACH_S = 0.1  # how far from its place a displaced one is searched


@dataclass(slots=True)
class TrialResult:
    """A row of the rehearsal's table. The names of the fields are those of `--json`.

    Parameters
    ----------
    fault : str
        Name of the scenario.
    injected : str
        When the fault started and how much, as text.
    said : list of str
        Gaps, changes of health and restarts that the engine reported.
    recovered_s : float or None
        How much later than without the fault the first vocalization after it came.
    reader : str
        Where vocalizations are counted: ``subscriber``, ``journal`` or ``sinks``.
    expected, received, kept, told, changed, lost, double : int
        Numbers of vocalizations. Of those not received, `kept` are in the journal, the
        loss of `told` was reported, `changed` came with other bounds or another unit;
        `double` came twice.
    verdict : str
        Whether the configuration survived.
    why : list of str
        Sentences: reasons of a failure.
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
    verdict: TrialVerdict = "survived"
    why: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def judge(
    evidence: TrialEvidence,
    baseline: Sequence[Vocalization],
    reader: str,
    resumes: bool,
) -> TrialResult:
    """Compare a trial with the undisturbed run, and its reports with the fault.

    Parameters
    ----------
    evidence : TrialEvidence
        The recorded events of one trial.
    baseline : sequence of Vocalization
        Those of the undisturbed recording; empty: they are not compared.
    reader : str
        Where vocalizations are counted: ``subscriber``, ``journal`` or ``sinks``.
    resumes : bool
        Whether a subscriber can get back missed messages.
    """
    scenario, record = evidence.scenario, evidence.record
    injected = injection_text(evidence)
    result = TrialResult(scenario.name, injected, evidence.reports(), reader=reader)
    result.why += record.problems
    if not evidence.fault_started():
        result.why.append("the fault did not strike: the run ended before")
    if baseline:
        _compare(evidence, baseline, result)
        if resumes and result.kept:
            result.why.append(f"the subscriber did not get back {result.kept}")
    result.why += list(_process_failures(evidence))
    result.why += list(missing_reports(evidence))
    if result.why:
        result.verdict = "FAILED"
    elif result.told or result.changed:
        result.verdict = "survived with told loss"
    return result


def injection_text(evidence: TrialEvidence) -> str:
    """Return when a fault started and how much, as text."""
    scenario = evidence.scenario
    if scenario.fault == NO_FAULT:
        return f"nothing, {evidence.record.seconds:.0f} s"
    if scenario.fault == "drift":
        return f"{scenario.options['ppm']:+g} ppm throughout"
    text = f"at {scenario.at_s:.1f} s"
    if scenario.for_s:
        text += f" for {scenario.for_s:g} s"
    forms = {"rate": "{} Hz", "ms": "up to {} ms late", "times": "{} calls"}
    for name, form in forms.items():
        if name in scenario.options:
            text += ", " + form.format(scenario.options[name])
    return text


# ---- vocalizations -------------------------------------------------------------------


def _compare(
    evidence: TrialEvidence, baseline: Sequence[Vocalization], result: TrialResult
) -> None:
    rate, record = evidence.sample_rate, evidence.record
    journaled = evidence.journaled()
    received, fallback = evidence.received(), journaled
    if result.reader == "journal":
        received, fallback = journaled, []
    elif result.reader == "sinks":
        received = evidence.sent()
    first = _first_sample(evidence)
    last = round(record.seconds * rate)
    expected = [one for one in baseline if one.onset >= first and one.offset <= last]
    spans, missing = evidence.reported_spans(), evidence.known_missing()
    before, after = round(BEFORE_S * rate), round(AFTER_S * rate)
    aftermath = round(AFTERMATH_S * rate)
    tolerance = round(TOLERANCE_S * rate)

    def is_reported(one: Vocalization) -> bool:
        # What was sent in its place, even with other bounds, is known to be missing.
        return touches_spans(one, spans, before, after) or any(
            overlaps(one, each) for each in missing
        )

    def may_change(one: Vocalization) -> bool:
        return evidence.is_resampled or touches_spans(one, spans, before, aftermath)

    found = compare(expected, received, fallback, tolerance, is_reported, may_change)
    result.expected = found.expected
    result.received, result.kept = len(found.received), len(found.journaled)
    result.told, result.changed = len(found.reported), len(found.changed)
    result.lost, result.double = len(found.lost), found.duplicates
    result.recovered_s = _recovered_s(evidence, expected)
    result.why += list(_loss(evidence, found))
    if record.journal is not None:
        held = compare(expected, journaled, [], tolerance, is_reported, may_change)
        if held.lost:
            lack = f"the journal lacks {len(held.lost)} of {result.expected}"
            # What a sink loses while it fails itself is counted and reported.
            is_own = evidence.scenario.stage == "journal"
            (result.said if is_own else result.why).append(lack)
    later = [one for one in expected if one.onset > evidence.fault_end() + after]
    off = displacement(later, received, round(_REACH_S * rate))
    if off is not None and abs(off) > BLOCK_S * rate:
        result.why.append(
            f"what follows is {off / rate * 1000:+.0f} ms out of its place"
        )


def _first_sample(evidence: TrialEvidence) -> int:
    """Return the sample from which a late subscriber without replay can have any."""
    messages = evidence.record.received
    if not messages or any(message.replayed for _, message in messages):
        return 0
    first = messages[0][1]
    seconds = first.header.at / first.sample_rate
    return round(max(0.0, seconds - 1.0 / evidence.sample_rate) * evidence.sample_rate)


def _recovered_s(
    evidence: TrialEvidence, expected: Sequence[Vocalization]
) -> float | None:
    """Return how much later than undisturbed the first one after the fault came."""
    if evidence.scenario.fault in (NO_FAULT, "drift"):
        return None
    end = evidence.fault_end()
    due = min((one.offset for one in expected if one.offset > end), default=None)
    arrived = [at for each, at in evidence.arrivals() if each.vocalization.offset > end]
    if due is None or not arrived:
        return None
    return round(max(0, min(arrived) - evidence.played_ns(due)) / NS, 2)


def _loss(evidence: TrialEvidence, found: Comparison) -> Iterator[str]:
    kind = "labels" if evidence.labelled else "segments"
    if not found.received:
        yield f"none of {found.expected} {kind} was received"
    elif found.lost:
        first = min(one.onset for one in found.lost) / evidence.sample_rate
        yield (
            f"{len(found.lost)} {kind} lost without a word, the first at {first:.1f} s"
        )
    if found.duplicates:
        yield f"{found.duplicates} {kind} came twice"


def _process_failures(evidence: TrialEvidence) -> Iterator[str]:
    """Yield a sentence for each unexpected end of the process."""
    exits = evidence.record.exits
    if exits and exits[-1] not in (EXIT_CLEAN, EXIT_LOSS):
        last_line = (evidence.record.log_lines or [""])[-1]
        yield f"the run ended with code {exits[-1]}: {last_line}"
    if len(exits) > 2:
        yield f"the engine ended {len(exits) - 1} times for one fault"


# ---- reports -------------------------------------------------------------------------


def missing_reports(evidence: TrialEvidence) -> Iterator[str]:
    """Check that the engine reported the fault, and reported it correctly.

    Yields
    ------
    str
        One sentence for each report that is missing or wrong.
    """
    scenario = evidence.scenario
    ended = len(evidence.record.exits) > 1
    match scenario.fault:
        case "drop" | "stall":
            yield from _gap_of(evidence, scenario.for_s)
        case "unplug":
            yield from _gap_of(evidence, None)
        case "none" | "jitter" if evidence.gaps():
            yield "samples were lost"
        case "clip" if "degraded" not in evidence.states("signal clipped"):
            yield "the clipped signal was not reported"
        case "wrong_rate" if not (
            "degraded" in evidence.states("signal rate") or evidence.gaps()
        ):
            yield "the wrong rate was not reported"
        case "drift":
            yield from _drift(evidence)
        case "crash" | "hang" if not (ended or evidence.states(scenario.stage)):
            yield f"the failure of '{scenario.stage}' was not reported"
        case "disk_full":
            yield from _disk(evidence)
        case "subscriber_stall":
            yield from _lateness(evidence)


def _gap_of(evidence: TrialEvidence, seconds: float | None) -> Iterator[str]:
    """Check that gaps were published, in each stream of `seconds` if that is known."""
    lost_s = evidence.lost_s()
    if max(lost_s.values(), default=0.0) <= 0:
        yield "no gap was reported"
    elif seconds is not None:
        for stream, reported_s in lost_s.items():
            if abs(reported_s - seconds) > BLOCK_S:
                yield (
                    f"'{stream}': gaps of {reported_s:.3f} s were reported, "
                    f"{seconds:g} s were lost"
                )


def _drift(evidence: TrialEvidence) -> Iterator[str]:
    true, found = float(evidence.scenario.options["ppm"]), evidence.drift_ppm()
    if found is None:
        yield "no drift was reported"
    elif not _LEAST_DRIFT <= found / true <= _MOST_DRIFT:
        yield f"a drift of {found:+.0f} ppm was reported"


def _disk(evidence: TrialEvidence) -> Iterator[str]:
    if not evidence.states("sink"):
        yield "the full disk was not reported"
    if evidence.record.journal is not None:
        end = evidence.fault_end()
        if not any(each.vocalization.onset > end for each in evidence.journaled()):
            yield "the journal did not go on afterwards"


def _lateness(evidence: TrialEvidence) -> Iterator[str]:
    """Check that a subscriber that does not read delays no message to another."""
    late = _late_ms(evidence)
    if late is not None and late > _LATE_MS:
        yield f"the other subscriber's messages came {late:.0f} ms later (median)"


def _late_ms(evidence: TrialEvidence) -> float | None:
    """Return the median ms from engine to subscriber in the fault, less that before."""
    sent_ns = {
        message_key(event.run, event.header): event.time_ns
        for event in evidence.record.events
    }
    start = evidence.scenario.at_s * evidence.sample_rate
    delays_ms: dict[bool, list[float]] = {False: [], True: []}
    for at, message in evidence.record.received or ():
        at_engine_ns = sent_ns.get(message_key(message.run, message.header))
        if at_engine_ns is not None:
            delays_ms[message.at >= start].append((at - at_engine_ns) / 1e6)
    if not delays_ms[True] or not delays_ms[False]:
        return None
    return median(delays_ms[True]) - median(delays_ms[False])

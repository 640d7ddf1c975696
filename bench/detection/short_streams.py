"""Compare the calls found in streams of one second with those of a long stream.

A triggered recorder writes short files, and the noise floor of each is unknown at
first. Every annotated recording is detected whole and in pieces of one second, each a
stream of its own. Counted are the annotated calls that the whole finds: a call is found
when segments cover at least half of it. A call that a border of two pieces cuts is
counted apart, because no stream holds it. A segment is false when it overlaps no
annotated call.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import soundfile
from annotated_sets import SETS, Recording, Span, data_folder, read_set
from detect import Samples, detect, is_inside

LENGTH_S = 1.0


def in_pieces(plugin: str, samples: Samples, sample_rate: int) -> list[Span]:
    """Detect segments in seconds, in streams of one second."""
    length = round(LENGTH_S * sample_rate)
    found = []
    for start in range(0, len(samples), length):
        for onset, offset in detect(
            plugin, {}, samples[start : start + length], sample_rate
        ):
            begin = start / sample_rate
            found.append((begin + onset, begin + offset))
    return found


@dataclass(frozen=True)
class Counts:
    """Annotated calls that the whole finds, and false segments.

    ``calls`` lie within one piece, ``cut`` ones in two; ``kept`` and ``cut_kept`` are
    those that pieces find. ``false`` and ``false_in_pieces`` overlap no call.
    """

    calls: int = 0
    kept: int = 0
    cut: int = 0
    cut_kept: int = 0
    false: int = 0
    false_in_pieces: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counts(*(one + two for one, two in pairs))


def _covered(span: Span, others: Sequence[Span]) -> float:
    return sum(max(0.0, min(span[1], b) - max(span[0], a)) for a, b in others)


def _is_found(call: Span, found: Sequence[Span]) -> bool:
    return _covered(call, found) >= 0.5 * (call[1] - call[0])


def compare(calls: Sequence[Span], whole: list[Span], pieces: list[Span]) -> Counts:
    """Return how many calls and false segments there are, in the whole and in pieces.

    Parameters
    ----------
    calls, whole, pieces : sequence of (float, float)
        Annotated calls and what was found, in seconds.
    """
    known = [call for call in calls if _is_found(call, whole)]
    inner = [call for call in known if call[0] // LENGTH_S == call[1] // LENGTH_S]
    cut = [call for call in known if call[0] // LENGTH_S != call[1] // LENGTH_S]
    return Counts(
        len(inner),
        sum(_is_found(call, pieces) for call in inner),
        len(cut),
        sum(_is_found(call, pieces) for call in cut),
        sum(_covered(span, calls) == 0 for span in whole),
        sum(_covered(span, calls) == 0 for span in pieces),
    )


def _counts_of(plugin: str, recording: Recording) -> Counts:
    samples, rate = soundfile.read(recording.path, dtype="float32")
    found = [detect(plugin, {}, samples, rate), in_pieces(plugin, samples, rate)]
    if recording.judged is not None:
        found = [
            [span for span in spans if is_inside(span, recording.judged)]
            for spans in found
        ]
    return compare(recording.spans, *found)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detectors", nargs="+", help="detector plugins")
    parser.add_argument("--only", default="", help="sets whose name contains this")
    arguments = parser.parse_args()
    data = data_folder()
    print("| set | detector | calls | in 1 s | cut | in 1 s | false | in 1 s |")
    print("| --- | --- |" + " --: |" * 6)
    shares: dict[str, dict[str, list[float]]] = {}
    for which in SETS:
        if arguments.only not in which.name:
            continue
        recordings = read_set(which, data)
        for plugin in arguments.detectors:
            counts = Counts()
            for recording in recordings:
                counts += _counts_of(plugin, recording)
            share = counts.kept / max(counts.calls, 1)
            if which.group:
                of_groups = shares.setdefault(plugin, {})
                of_groups.setdefault(which.group, []).append(share)
            print(
                f"| {which.name} | {plugin} | {counts.calls} | {share:.1%} "
                f"| {counts.cut} | {counts.cut_kept / max(counts.cut, 1):.0%} "
                f"| {counts.false} | {counts.false_in_pieces} |",
                flush=True,
            )
    for plugin, of_groups in shares.items():
        means = {group: float(np.mean(of)) for group, of in of_groups.items()}
        listed = ", ".join(f"{group} {mean:.1%}" for group, mean in means.items())
        mean = np.mean(list(means.values()))
        print(f"{plugin}, mean over groups {mean:.1%}: {listed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

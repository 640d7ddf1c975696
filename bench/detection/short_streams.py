"""Compare what streams of one second find with what a long stream finds.

A triggered recorder writes short files, and the noise floor of each is unknown at
first. Every annotated recording is detected whole and in pieces of one second, each a
stream of its own. A segment of the whole counts as found when the segments of the
pieces cover at least half of it; one of a piece counts as more when it overlaps none.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys
from collections.abc import Sequence

import soundfile
from annotated_sets import SETS, Span, data_folder, read_set
from detect import Samples, detect

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


def _covered(span: Span, others: Sequence[Span]) -> float:
    return sum(max(0.0, min(span[1], b) - max(span[0], a)) for a, b in others)


def compare(whole: list[Span], pieces: list[Span]) -> tuple[int, int, int]:
    """Return how many segments the whole has, the pieces find, and have besides."""
    kept = sum(_covered(span, pieces) >= 0.5 * (span[1] - span[0]) for span in whole)
    return len(whole), kept, sum(_covered(span, whole) == 0 for span in pieces)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detectors", nargs="+", help="detector plugins")
    parser.add_argument("--only", default="", help="sets whose name contains this")
    arguments = parser.parse_args()
    data = data_folder()
    if not data.is_dir():
        print(f"no recordings in {data}: set NEUROVOCAL_DATA", file=sys.stderr)
        return 1
    print("| set | detector | segments | of them in streams of 1 s | more |")
    print("| --- | --- | --: | --: | --: |")
    for which in SETS:
        if arguments.only not in which.name:
            continue
        recordings = read_set(which, data)
        for plugin in arguments.detectors:
            counts = [0, 0, 0]
            for recording in recordings:
                samples, rate = soundfile.read(recording.path, dtype="float32")
                pair = (
                    detect(plugin, {}, samples, rate),
                    in_pieces(plugin, samples, rate),
                )
                counts = [a + b for a, b in zip(counts, compare(*pair), strict=True)]
            share = counts[1] / max(counts[0], 1)
            print(
                f"| {which.name} | {plugin} | {counts[0]} | {share:.1%} "
                f"| {counts[2]} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

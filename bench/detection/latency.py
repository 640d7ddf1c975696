"""Measure the lag of a detector's onsets and offsets, in ms of arrived audio.

Recordings are played in blocks of a millisecond, at most a hop of the detector: the lag
of a mark is the audio that had arrived when it was told, less its own sample. Time for
computing and for larger blocks to fill is not in it. Marks of the first second are
counted apart, as the noise floor is not known at first.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys

import numpy as np
import soundfile
from annotated_sets import SETS, data_folder, read_set
from detect import Samples, make_detector

from neurovocal.engine.contracts.types import Block, Offset, Onset

_BLOCK_S = 0.001
_MOST_S = 30.0
_FIRST_S = 1.0

Lags = dict[tuple[str, bool], list[float]]


def lags_of(plugin: str, samples: Samples, sample_rate: int) -> tuple[Lags, float]:
    """Return lags in ms by kind of mark and whether it is of the first second.

    Returns
    -------
    lags : dict
        Lags of ``("onset" | "offset", is_first)``.
    latency_ms : float
        What the detector states as the largest one.
    """
    detector = make_detector(plugin, {}, sample_rate)
    length = max(1, round(_BLOCK_S * sample_rate))
    lags: Lags = {}
    for start in range(0, len(samples), length):
        block = Block(start, samples[start : start + length, None])
        for mark in detector.process(block):
            if isinstance(mark, Onset | Offset):
                kind = "onset" if isinstance(mark, Onset) else "offset"
                is_first = mark.sample < _FIRST_S * sample_rate
                late_ms = 1000 * (block.stop - mark.sample) / sample_rate
                lags.setdefault((kind, is_first), []).append(late_ms)
    return lags, 1000 * detector.latency / sample_rate


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detectors", nargs="*", default=["bands"])
    parser.add_argument("--only", default="", help="sets whose name contains this")
    arguments = parser.parse_args()
    data = data_folder()
    print("| set | detector | mark | n | median ms | 95 % | most | stated |")
    print("| --- | --- | --- |" + " --: |" * 5)
    for which in SETS:
        if arguments.only not in which.name:
            continue
        for plugin in arguments.detectors:
            lags: Lags = {}
            seconds = stated_ms = 0.0
            for recording in read_set(which, data):
                samples, rate = soundfile.read(recording.path, dtype="float32")
                own, stated_ms = lags_of(plugin, samples, rate)
                for key, values in own.items():
                    lags.setdefault(key, []).extend(values)
                seconds += len(samples) / rate
                if seconds >= _MOST_S:
                    break
            for (kind, is_first), values in sorted(lags.items()):
                median, most_of, most = np.quantile(values, (0.5, 0.95, 1.0))
                when = f"{kind}, first second" if is_first else kind
                print(
                    f"| {which.name} | {plugin} | {when} | {len(values)} "
                    f"| {median:.1f} | {most_of:.1f} | {most:.1f} | {stated_ms:.1f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())

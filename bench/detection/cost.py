"""Measure the cost of a detector against that of ``energy``, block by block.

Both get the same blocks of 32 ms in turn, in one process: the median of the ratios of
their times says little about what else the machine does. The first two seconds of each
recording are left out.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys
import time

import numpy as np
import soundfile
from annotated_sets import SETS, data_folder, read_set
from detect import BLOCK_S, Samples, make_detector
from soxr import resample

from neurovocal.engine.contracts.types import Block

# Sets, and the rates in Hz that their recordings are played at; mice have ultrasound.
_PLAYED = (("gy6or6 23+24", 32_000), ("gy6or6 23+24", 48_000), ("mouse", 250_000))
# What a detector needs beside its name.
_OPTIONS: dict[str, dict[str, object]] = {"network": {"bundle": "any-animal"}}
_SKIPPED_S = 2.0
_MOST_S = 60.0


def block_times(plugin: str, samples: Samples, sample_rate: int) -> list[list[int]]:
    """Return the times of a detector and of ``energy`` for each block, in ns."""
    pair = [
        make_detector(name, _OPTIONS.get(name, {}), sample_rate)
        for name in (plugin, "energy")
    ]
    length = round(BLOCK_S * sample_rate)
    times = []
    for start in range(0, len(samples), length):
        block = Block(start, samples[start : start + length, None])
        row = []
        for detector in pair:
            began = time.perf_counter_ns()
            detector.process(block)
            row.append(time.perf_counter_ns() - began)
        if start >= _SKIPPED_S * sample_rate:
            times.append(row)
    return times


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detectors", nargs="*", default=["bands"])
    arguments = parser.parse_args()
    data = data_folder()
    print("| detector | Hz | blocks | us per block | of energy | ratio |")
    print("| --- | --: | --: | --: | --: | --: |")
    sets = {which.name: which for which in SETS}
    for name, rate in _PLAYED:
        recordings = read_set(sets[name], data)
        for plugin in arguments.detectors:
            times: list[list[int]] = []
            for recording in recordings:
                samples, own_rate = soundfile.read(recording.path, dtype="float32")
                times += block_times(plugin, resample(samples, own_rate, rate), rate)
                if len(times) * BLOCK_S > _MOST_S:
                    break
            values = np.array(times) / 1000
            own, other = np.median(values, axis=0)
            ratio = np.median(values[:, 0] / values[:, 1])
            print(
                f"| {plugin} | {rate} | {len(values)} | {own:.0f} | {other:.0f} "
                f"| {ratio:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

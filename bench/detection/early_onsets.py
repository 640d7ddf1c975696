"""Measure how late onsets are told after the sound began, and what `early` costs.

Recordings are played in blocks of 4 ms, as a lane of `tile: 1` gets them; an onset is
told when the block that made it known has arrived. Time for computing is not in it. The
sounds are bursts of noise whose first sample is known, and annotated recordings. A told
onset is false if no sound lies within 20 ms of it; a sound is found if an onset is told
from 20 ms before its beginning to its end. The first two seconds are left out.

    .venv/bin/python bench/detection/early_onsets.py
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile
from annotated_sets import SETS, Span, data_folder, read_set
from detect import Samples, make_detector, preset

from neurovocal.engine.contracts.types import Block, Onset

_BLOCK_S = 0.004
_REACH_S = 0.02
_FIRST_S = 2.0
_MOST_S = 120.0
_RATE = 32_000
# Rise times in ms and levels above the noise in dB of the synthetic sounds.
_SYNTHETIC = ((0.0, 40.0), (0.0, 20.0), (5.0, 40.0), (5.0, 20.0))


class Tally:
    """Lags of onsets in ms, and numbers of sounds and of false onsets."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.n_sounds = self.n_false = 0
        self.seconds = 0.0

    def row(self) -> str:
        """Return the cells of a table."""
        lags = np.array(self.lags or [np.nan])
        share = 100 * len(self.lags) / max(1, self.n_sounds)
        median, late, most = np.quantile(lags, (0.5, 0.95, 1.0))
        per_minute = 60 * self.n_false / self.seconds
        return (
            f"{self.n_sounds} | {share:.0f} | {lags.mean():.1f} | {median:.1f} "
            f"| {late:.1f} | {most:.1f} | {per_minute:.1f}"
        )


def told_onsets(
    plugin: str, options: dict[str, object], samples: Samples, rate: int
) -> Iterator[tuple[float, float]]:
    """Yield the time of each onset and that at which it was told, in s."""
    detector = make_detector(plugin, options, rate)
    length = round(_BLOCK_S * rate)
    for start in range(0, len(samples), length):
        block = Block(start, samples[start : start + length, None])
        for mark in detector.process(block):
            if isinstance(mark, Onset):
                yield mark.sample / rate, block.stop / rate


def count(tally: Tally, told: Sequence[tuple[float, float]], spans: Sequence[Span]):
    """Add the onsets of one recording and its sounds to a tally."""
    sounds = sorted(span for span in spans if span[0] >= _FIRST_S)
    begins = np.array([onset for onset, _ in sounds])
    found: set[int] = set()
    for onset_s, told_s in told:
        if onset_s < _FIRST_S:
            continue
        near = int(np.searchsorted(begins, onset_s + _REACH_S)) - 1
        if near < 0 or onset_s > sounds[near][1] + _REACH_S:
            tally.n_false += 1
        elif near not in found:
            found.add(near)
            tally.lags.append(1000 * (told_s - sounds[near][0]))
    tally.n_sounds += len(sounds)


def synthetic(rise_ms: float, level_db: float) -> tuple[Samples, list[Span]]:
    """Return two minutes of bursts with a rise time above noise, and their spans."""
    rng = np.random.default_rng([round(rise_ms), round(level_db)])
    samples = rng.normal(0, 1e-3, round(_MOST_S * _RATE)).astype(np.float32)
    spans, position = [], round(_FIRST_S * _RATE)
    while position < len(samples) - _RATE:
        length = round(rng.uniform(0.03, 0.08) * _RATE)
        burst = rng.normal(0, 1e-3 * 10 ** (level_db / 20), length)
        n_rise = round(rise_ms * _RATE / 1000)
        burst[:n_rise] *= np.linspace(0, 1, n_rise, endpoint=False)
        samples[position : position + length] += burst.astype(np.float32)
        spans.append((position / _RATE, (position + length) / _RATE))
        position += length + round(rng.uniform(0.05, 0.2) * _RATE)
    return samples, spans


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="sets whose name contains this")
    arguments = parser.parse_args()
    print(
        "| sound | early | n | found % | mean ms | median | 95 % | most | false/min |"
    )
    print("| --- | --- |" + " --: |" * 7, flush=True)
    for rise_ms, level_db in _SYNTHETIC:
        name = f"bursts, rise {rise_ms:g} ms, {level_db:g} dB"
        if arguments.only in name:
            samples, spans = synthetic(rise_ms, level_db)
            for early in (False, True):
                tally = Tally()
                options: dict[str, object] = {"hop_ms": 0.5, "early": early}
                told = list(told_onsets("energy", options, samples, _RATE))
                count(tally, told, spans)
                tally.seconds = len(samples) / _RATE
                print(f"| {name} | {early} | {tally.row()} |", flush=True)
    for which in SETS:
        if arguments.only not in which.name:
            continue
        plugin, options = preset(which.preset)
        tallies = {early: Tally() for early in (False, True)}
        for recording in read_set(which, data_folder()):
            samples, rate = soundfile.read(recording.path, dtype="float32")
            samples = samples[: round(_MOST_S * rate)]
            for early, tally in tallies.items():
                own = {**options, "early": early}
                count(
                    tally,
                    list(told_onsets(plugin, own, samples, rate)),
                    recording.spans,
                )
                tally.seconds += len(samples) / rate
            if tallies[True].seconds >= _MOST_S:
                break
        for early, tally in tallies.items():
            name = f"{which.name}, `{plugin}` of {which.preset}"
            print(f"| {name} | {early} | {tally.row()} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

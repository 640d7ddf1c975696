"""Sound around the examples of a recording: no more of a long file is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.data.sound_files import opened
from neurovocal.models.tuning.examples import Example
from neurovocal.models.tuning.heard import Stretch

# Before the first example, and after the last one.
_BEFORE_S, _AFTER_S = 5.0, 0.5
# Longer stretches are read around their examples only; so much sound is enough.
_MOST_S = 120.0


@dataclass(frozen=True, eq=False)
class HeardExamples:
    """A stretch, its examples, where in the recording it begins, and its channel."""

    stretch: Stretch
    examples: list[Example]
    start_s: float
    channel: int


def read_stretches(
    path: Path,
    examples: Sequence[Example],
    channel: int,
    sample_rate: int,
    *,
    sparse: bool,
) -> Iterator[HeardExamples]:
    """Yield the annotated stretches of one channel of a recording.

    From 5 s before the first example to the last one, or around groups of examples if
    that is more than two minutes: a part of them, evenly chosen, if they are many.

    Parameters
    ----------
    path : Path
        The recording.
    examples : sequence of Example
        In time order, without overlaps.
    channel : int
        From 1.
    sample_rate : int
        Of the recording, in Hz.
    sparse : bool
        Whether other calls than the examples are in the stretch.

    Raises
    ------
    ConfigError
        The recording cannot be read there, or holds values that are not finite.
    """
    ends = {after: before.offset_s for before, after in pairwise(examples)}
    for group in _groups(examples):
        # Examples of other groups are no part of this one, nor false alarms in it.
        earliest_s = ends.get(group[0], 0.0)
        start_s = max(earliest_s, group[0].onset_s - _BEFORE_S)
        stop_s = group[-1].offset_s + _AFTER_S
        samples = _read(path, channel, sample_rate, start_s, stop_s)
        begin_s = round(start_s * sample_rate) / sample_rate
        spans = [(each.onset_s - begin_s, each.offset_s - begin_s) for each in group]
        judged = [(0.0, spans[-1][1])]
        if sparse:
            judged = [(on - (off - on) / 4, off) for on, off in spans]
        yield HeardExamples(
            Stretch(samples, sample_rate, spans, judged), group, begin_s, channel
        )


def _groups(examples: Sequence[Example]) -> list[list[Example]]:
    """Return the examples by stretch, evenly chosen up to `_MOST_S` of sound."""
    if examples[-1].offset_s - examples[0].onset_s <= _MOST_S:
        return [list(examples)]
    groups = [[examples[0]]]
    for one, other in pairwise(examples):
        lasted = other.offset_s - groups[-1][0].onset_s
        if other.onset_s - one.offset_s > 2 * _BEFORE_S or lasted > _MOST_S / 4:
            groups.append([])
        groups[-1].append(other)
    total_s = sum(group[-1].offset_s - group[0].onset_s + _BEFORE_S for group in groups)
    step = max(1, int(np.ceil(total_s / _MOST_S)))
    return groups[::step]


def _read(
    path: Path, channel: int, sample_rate: int, start_s: float, stop_s: float
) -> Float32:
    first, stop = round(start_s * sample_rate), round(stop_s * sample_rate)
    try:
        with opened(path) as recording:
            recording.seek(first)
            samples = recording.read(stop - first)
    except AudioFileError as error:
        raise ConfigError(f"'{path}' {error}") from error
    mono = np.ascontiguousarray(samples[:, channel - 1])
    bad = np.flatnonzero(~np.isfinite(mono))
    if len(bad):
        raise ConfigError(
            f"'{path}': {len(bad)} samples around the examples are not finite (the "
            f"first at {(first + bad[0]) / sample_rate:.3f} s): repair the file, or "
            "give examples elsewhere"
        )
    return mono

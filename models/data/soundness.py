"""Reading of every recording before a computation: damage, silence, copies."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.models.data.annotations import truncate_problems
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.data.frames import TOLERANCE_S
from neurovocal.models.data.sound_files import opened

_BLOCK = 2**14


@dataclass(frozen=True, slots=True)
class Sound:
    """Digest of a recording's samples, and whether all of them are equal."""

    digest: str
    is_silent: bool


def read_recordings(
    recordings: Sequence[AnnotatedRecording],
    watch: Callable[[float], None] = lambda share: None,
) -> dict[str, Sound]:
    """Read every recording once, in blocks.

    Parameters
    ----------
    recordings : sequence of AnnotatedRecording
        Whole recordings.
    watch : callable
        Called with the completed share.

    Returns
    -------
    dict
        By file name.

    Raises
    ------
    ConfigError
        Lists every recording that cannot be read to its end, or holds values that
        are not finite.
    """
    found: dict[str, Sound] = {}
    problems: list[str] = []
    for number, recording in enumerate(recordings):
        try:
            found[recording.file] = _read(recording)
        except ConfigError as error:
            problems += error.problems
        watch((number + 1) / len(recordings))
    if problems:
        raise ConfigError(truncate_problems(problems))
    return found


def silent_note(sounds: Mapping[str, Sound], what: str = "recordings") -> list[str]:
    """Return a sentence on the recordings without any sound; none if all have some.

    Raises
    ------
    ConfigError
        No recording has any sound.
    """
    silent = sorted(file for file, sound in sounds.items() if sound.is_silent)
    if not silent:
        return []
    names = ", ".join(silent[:5]) + (", ..." if len(silent) > 5 else "")
    sentence = (
        f"{len(silent)} of {len(sounds)} {what} hold no sound, all of their samples "
        f"are equal ({names})"
    )
    if len(silent) == len(sounds):
        raise ConfigError(f"{sentence}: record or convert them again")
    return [sentence]


def leave_out_copies(
    dataset: Dataset, sounds: Mapping[str, Sound], parts: Mapping[str, str]
) -> tuple[Dataset, list[str]]:
    """Leave out recordings that hold the same sound as another one.

    A sound in two parts of the split would be tested on what was trained.

    Parameters
    ----------
    dataset : Dataset
    sounds : mapping of str to Sound
        Of every recording, by file name.
    parts : mapping of str to str
        Declared part of the split by file name; empty for a split at random.

    Returns
    -------
    dataset : Dataset
        With one recording of each sound.
    notes : list of str
        One sentence for each recording that was left out.

    Raises
    ------
    ConfigError
        Copies have different annotations, or are in different parts.
    """
    groups: defaultdict[str, list[AnnotatedRecording]] = defaultdict(list)
    for recording in dataset.recordings:
        sound = sounds[recording.file]
        if not sound.is_silent:
            groups[sound.digest].append(recording)
    left_out: set[str] = set()
    problems, notes = [], []
    for first, *others in groups.values():
        for other in others:
            if other.path == first.path:
                continue  # two channels of a file, which the split keeps together
            pair = f"'{first.file}' and '{other.file}' hold the same sound"
            here, there = parts.get(first.file), parts.get(other.file)
            if here != there:
                problems.append(
                    f"{dataset.folder}: {pair}, one is for {here}, one for {there}: "
                    "keep one of them"
                )
            elif _segments(first) != _segments(other):
                problems.append(
                    f"{dataset.folder}: {pair} with different annotations: keep one "
                    "of them"
                )
            else:
                left_out.add(other.file)
                notes.append(f"{pair}: '{other.file}' is left out")
    if problems:
        raise ConfigError(truncate_problems(problems))
    kept = tuple(r for r in dataset.recordings if r.file not in left_out)
    return replace(dataset, recordings=kept), notes


def _segments(recording: AnnotatedRecording) -> list[tuple[float, float, str]]:
    return [(a.onset_s, a.offset_s, a.unit) for a in recording.annotations]


def _read(recording: AnnotatedRecording) -> Sound:
    """Read a recording; raises ConfigError in one sentence if it is damaged."""
    path, rate = recording.path, recording.sample_rate
    digest, n_read, n_bad, first_bad = blake2b(digest_size=16), 0, 0, 0
    low, high = np.inf, -np.inf
    try:
        with opened(path) as file:
            while len(block := file.read(_BLOCK)):
                mono = np.ascontiguousarray(block[:, recording.channel - 1])
                bad = np.flatnonzero(~np.isfinite(mono))
                if len(bad):
                    first_bad = first_bad if n_bad else n_read + int(bad[0])
                    n_bad += len(bad)
                low, high = min(low, mono.min()), max(high, mono.max())
                digest.update(mono.tobytes())
                n_read += len(mono)
    except AudioFileError as error:
        raise ConfigError(f"{path}: {error}") from error
    read_s = n_read / rate
    if file.problem is not None or read_s < recording.duration_s - TOLERANCE_S:
        raise ConfigError(
            f"{path}: is damaged, {read_s:.3f} s of {recording.duration_s:.3f} s can "
            "be read: repair it or leave it out"
        )
    if n_bad:
        raise ConfigError(
            f"{path}: {n_bad} samples are not finite (the first at "
            f"{first_bad / rate:.3f} s): repair the file or leave it out"
        )
    digest.update(str(rate).encode())
    return Sound(digest.hexdigest(), is_silent=low >= high)

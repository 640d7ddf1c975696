"""Segments and recordings that a person reviews, as they were found."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from neurovocal.engine import ConfigError
from neurovocal.engine.support.label_words import (
    clean_label,
    is_silence,
    is_without_unit,
)
from neurovocal.engine.support.text import printable

Kind: TypeAlias = Literal["segment", "near_miss"]
Order: TypeAlias = Literal["time", "posterior", "surprise", "near_miss", "unit"]

UNKNOWN = "unknown"
MOST_SEGMENTS = 200_000
_LONGEST_UNIT = 250
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class AudioPiece(msgspec.Struct, frozen=True):
    """Samples of an audio file that are a part of a recording.

    Parameters
    ----------
    path : str
        The audio file.
    start : int
        Position of the first sample in the recording, at the rate of the file.
    first : int
        Number of that sample in the file.
    n_samples : int or None
        How many samples; None: to the end of the file.
    channels : tuple of int
        Channels of the file, from 1; several are averaged.
    """

    path: str
    start: int = 0
    first: int = 0
    n_samples: int | None = None
    channels: tuple[int, ...] = (1,)


class Recording(msgspec.Struct, frozen=True):
    """Recording, or stream of a run, whose segments are reviewed.

    Parameters
    ----------
    id : str
        Key that stays the same whenever the journal or folder is opened.
    name : str
        Name for people: stream or file.
    sample_rate : int
        Rate in Hz at which positions of segments count.
    audio_rate : int
        Rate in Hz of the audio files; 0 without any.
    hop_length : int
        Samples by which a key moves an edge.
    n_samples : int or None
        Length, if it is known.
    utc_ns : int or None
        Time of sample 0, if it is known.
    run : str
        Run of the engine that heard it; empty for a folder.
    audio : tuple of AudioPiece
        Where its sound is.
    problem : str
        Why there is no sound, in a sentence.
    holes : tuple of (int, int)
        Samples ``[start, stop)`` that were lost or withheld; an empty one is a join.
    """

    id: str
    name: str
    sample_rate: int
    audio_rate: int = 0
    hop_length: int = 1
    n_samples: int | None = None
    utc_ns: int | None = None
    run: str = ""
    audio: tuple[AudioPiece, ...] = ()
    problem: str = ""
    holes: tuple[tuple[int, int], ...] = ()


class Segment(msgspec.Struct, frozen=True, gc=False):
    """Segment ``[onset, offset)`` of a recording, or a near miss, and its review.

    Parameters
    ----------
    id, recording : str
        Keys of the segment and of its recording.
    onset, offset : int
        Samples at the rate of the recording.
    unit : str
        Its unit; empty: not labelled.
    kind : {'segment', 'near_miss'}
        A near miss that got a unit is a segment.
    posterior, surprise, score : float or None
        What the engine said of it: the posterior of its unit, its mean surprise, the
        detector's value.
    reason : str
        Of a near miss: why it became no segment.
    reviewed : bool
        Whether a person has decided about it.
    alive : bool
        False: deleted, or merged into another one.
    author : str
        Who changed it last; empty: nobody.
    event : int
        Number of the last change; 0: none.
    """

    id: str
    recording: str
    onset: int
    offset: int
    unit: str = ""
    kind: Kind = "segment"
    posterior: float | None = None
    surprise: float | None = None
    score: float | None = None
    reason: str = ""
    reviewed: bool = False
    alive: bool = True
    author: str = ""
    event: int = 0


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a change may change of a segment; before and after it are stored."""

    recording: str
    onset: int
    offset: int
    unit: str
    kind: Kind
    alive: bool
    reviewed: bool


def image_of(segment: Segment) -> Image:
    """Return what a change may change of a segment."""
    return Image(
        segment.recording,
        segment.onset,
        segment.offset,
        segment.unit,
        segment.kind,
        segment.alive,
        segment.reviewed,
    )


class Collection(msgspec.Struct, frozen=True):
    """What there is to review.

    Parameters
    ----------
    name : str
        Journal or folder, for people.
    recordings : dict of str to Recording
        By key, in the order in which they are listed.
    segments : sequence of Segment
        As they were found.
    notes : sequence of str
        What a user should know, one sentence each.
    """

    name: str
    recordings: dict[str, Recording]
    segments: Sequence[Segment]
    notes: Sequence[str] = ()

    def require_content(self) -> None:
        """Raise ConfigError if there is nothing that could be reviewed."""
        if not self.recordings:
            raise ConfigError(f"'{self.name}' holds nothing that could be reviewed")
        if len(self.segments) > MOST_SEGMENTS:
            raise ConfigError(
                f"'{self.name}' holds {len(self.segments)} segments, {MOST_SEGMENTS} "
                "at most can be reviewed at once: choose with --run, --since or --until"
            )


def checked_unit(text: str) -> str:
    """Return a unit as it is stored.

    Raises
    ------
    ConfigError
        It is empty, too long, holds control characters, or means silence.
    """
    if _CONTROL.search(text) or not text.isprintable():
        raise ConfigError(
            f"'{printable(text[:40])}' cannot be a unit: it holds characters that "
            "cannot be printed"
        )
    unit = clean_label(text)
    if not unit:
        raise ConfigError("a unit needs a name")
    if len(unit) > _LONGEST_UNIT:
        raise ConfigError(
            f"a unit of {len(unit)} letters is too long: {_LONGEST_UNIT} at most"
        )
    if is_silence(unit):
        raise ConfigError(
            f"'{unit}' means silence to `neurovocal train`: delete the segment instead"
        )
    return UNKNOWN if is_without_unit(unit) else unit


def sort_key(order: Order) -> Callable[[Segment], tuple[float | str, ...]]:
    """Return the key function by which segments are listed in an order.

    Segments without the value come last; all else being equal, in order of time.
    """
    return _KEYS[order]


def _or_last(value: float | None, sign: int = 1) -> float:
    return float("inf") if value is None else sign * value


_KEYS: dict[Order, Callable[[Segment], tuple[float | str, ...]]] = {
    "time": lambda segment: (),
    "posterior": lambda segment: (_or_last(segment.posterior),),
    "surprise": lambda segment: (_or_last(segment.surprise, -1),),
    "near_miss": lambda segment: (_or_last(segment.score, -1),),
    "unit": lambda segment: (segment.unit, _or_last(segment.posterior)),
}

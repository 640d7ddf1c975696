"""Selection of recordings for a file source, and remarks about them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from pathlib import Path

from neurovocal.engine import AudioFileError, BuildContext
from neurovocal.engine.support.text import plain
from neurovocal.plugins.sources.audio_files.file import (
    RecordingHeader,
    channel_problem,
    find_recordings,
    inspect,
)
from neurovocal.plugins.sources.audio_files.start_time import StartTime

_SHOWN = 5


def find_all(
    names: str | Sequence[str], context: BuildContext, recursive: bool
) -> tuple[list[Path], list[str]]:
    """Return the paths of all recordings asked for, and a sentence per missing one.

    Parameters
    ----------
    names : str or sequence of str
        Recordings, folders or patterns.
    context : BuildContext
        Gives the folder that names are relative to.
    recursive : bool
        True to search folders inside a folder, too.
    """
    asked = [names] if isinstance(names, str) else names
    paths: list[Path] = []
    problems: list[str] = []
    for name in asked:
        try:
            paths += find_recordings(name, context, recursive)
        except AudioFileError as error:
            problems.append(str(error))
    if not asked:
        problems.append("name at least one recording")
    return paths, problems


def without_repeats(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return each path once, however it is spelt, and a sentence about the others."""
    counts = Counter(map(os.path.abspath, paths))
    repeated = [name for name, count in counts.items() if count > 1]
    first = {os.path.abspath(path): path for path in reversed(paths)}
    once = [first[name] for name in counts]
    if not repeated:
        return once, []
    more = f", and so are {len(repeated) - 1} more" if repeated[1:] else ""
    name = first[repeated[0]]
    return once, [f"'{name}' is named more than once{more}: each is heard once"]


def inspect_all(
    paths: Sequence[Path], channels: Sequence[int], zone: tzinfo | None
) -> tuple[list[RecordingHeader], list[str]]:
    """Return the headers of usable recordings, and a sentence for each other one.

    Parameters
    ----------
    paths : sequence of Path
        Paths of the recordings.
    channels : sequence of int
        Channels that each must have, counted from 1.
    zone : tzinfo, optional
        Zone of times of day without one.
    """
    headers, problems = [], []
    for path in paths:
        try:
            header = inspect(path, zone)
        except AudioFileError as error:
            problems.append(str(error))
            continue
        if (problem := channel_problem(header, channels)) is None:
            headers.append(header)
        else:
            problems.append(problem)
    return headers, problems


def check_one_rate(headers: Sequence[RecordingHeader]) -> None:
    """Raise AudioFileError unless all recordings have one sample rate."""
    first = headers[0]
    for header in headers:
        if header.sample_rate != first.sample_rate:
            raise AudioFileError(
                f"'{header.path}' has {header.sample_rate} Hz and '{first.path}' "
                f"{first.sample_rate} Hz: one stream has one rate (use streams: each)"
            )


def unused_channels(headers: Sequence[RecordingHeader]) -> Iterator[str]:
    """Yield a sentence if recordings have channels that are not used."""
    several = [header for header in headers if header.channels > 1]
    if several:
        first, more = several[0], len(several) - 1
        others = f" (and {more} more recordings alike)" if more else ""
        available = list(range(1, min(first.channels, _SHOWN) + 1))
        listed = str(available)
        if first.channels > _SHOWN:
            listed = f"{listed[:-1]}, ..., {first.channels}]"
        yield (
            f"'{first.path}' has {first.channels} channels{others}: using "
            f"channel 1 (choose with channels: {listed})"
        )


def expanded(headers: Sequence[RecordingHeader]) -> Iterator[str]:
    """Yield a sentence if recordings play slower than they were recorded."""
    several = [header for header in headers if header.expansion is not None]
    if several:
        first, more = several[0], len(several) - 1
        others = f" (and {more} more recordings alike)" if more else ""
        yield (
            f"'{first.path}' is time-expanded by {first.expansion:g} (TE in its "
            f"GUANO): its sample rate is taken as {first.sample_rate} Hz{others}"
        )


def noted(headers: Sequence[RecordingHeader]) -> Iterator[str]:
    """Yield a sentence for each unusual thing about the files of recordings."""
    for header in headers:
        if header.container.note:
            yield f"'{header.path}' {header.container.note}"


def describe_starts(paths: Sequence[Path], zone: tzinfo | None) -> Iterator[str]:
    """Yield lines for ``neurovocal check``: the starts of the first recordings."""
    for path in paths[:_SHOWN]:
        try:
            yield plain(_start_sentence(path, inspect(path, zone).start))
        except AudioFileError as error:
            yield str(error)
    if len(paths) > _SHOWN:
        yield f"... and {len(paths) - _SHOWN} more recordings"


def _start_sentence(path: Path, start: StartTime) -> str:
    if start.utc_ns is not None:
        return f"'{path}' began: {start}"
    if start.problem is not None:
        return f"when '{path}' began is not known: it says {start.problem}"
    return (
        f"'{path}' says nowhere when it began: its events have no UTC (give start_utc, "
        "or rename it like 20260501_040000Z.wav)"
    )


def doubtful_starts(headers: Sequence[RecordingHeader]) -> Iterator[str]:
    """Yield a sentence if start times were found that are not used."""
    doubtful = [header for header in headers if header.start.problem]
    if doubtful:
        first, more = doubtful[0], len(doubtful) - 1
        others = f" (and {more} more recordings alike)" if more else ""
        yield f"{_start_sentence(first.path, first.start)}{others}"

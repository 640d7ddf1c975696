"""Patches of the segments of recordings, with axes chosen by the recordings."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.errors import AudioFileError
from neurovocal.models.discovery.segments import Segments, SourceRecording
from neurovocal.plugins.detectors.band_level import ULTRASONIC_RATE, default_band
from neurovocal.plugins.features.patches import Patches, PatchMaker, PatchSpec
from neurovocal.plugins.sources.audio_files.file import Recording, inspect

_WINDOW_S = 30.0  # of sound in memory; its frames give the noise floor
# Longer segments fill a patch as one of this duration does.
_LONGEST_QUANTILE = 0.98
_LEAST_CORNER_HZ = 2000.0
_HIGHEST = 0.48  # of the rate


def spec_of(
    recordings: Sequence[SourceRecording],
    durations_s: NDArray[np.float64],
    options: Mapping[str, Any],
) -> PatchSpec:
    """Choose the axes by the commonest sample rate, the detector and the durations.

    Parameters
    ----------
    recordings : sequence of SourceRecording
        One at least has been read.
    durations_s : float64[n_segments]
        Durations of all segments.
    options : mapping
        Options of the detector: patches show its band, if it has one.
    """
    rates = Counter(r.sample_rate for r in recordings if r.sample_rate)
    rate = max(rates, key=lambda each: (rates[each], each))
    low = options.get("call_low_hz") or options.get("low_hz") or default_band(rate)[0]
    high = options.get("call_high_hz") or options.get("high_hz") or _HIGHEST * rate
    high = min(float(high), _HIGHEST * rate)
    low = min(float(low), high / 2)
    longest = float(np.quantile(durations_s, _LONGEST_QUANTILE))
    corner = max(_LEAST_CORNER_HZ, rate / 16)
    return PatchSpec(_frame_ms(rate), low, high, corner, max(longest, 1e-4))


def _frame_ms(rate: int) -> float:
    if rate > ULTRASONIC_RATE:
        return 2.0
    return 12.0 if rate > 16_000 else 25.0


def write_patches(
    out: Patches,
    recordings: Sequence[SourceRecording],
    segments: Segments,
    spec: PatchSpec,
    number: int,
) -> str | None:
    """Compute the patches of one recording's segments.

    Parameters
    ----------
    out : uint8[n_segments, N_COLUMNS, N_BINS]
        Receives the patches, at the places of the segments.
    recordings : sequence of SourceRecording
        All recordings.
    segments : Segments
        All segments.
    spec : PatchSpec
        Axes.
    number : int
        Index of the recording.

    Returns
    -------
    str or None
        Why the recording cannot be read any more; its patches are then empty.
    """
    own = np.flatnonzero(segments.recording == number)
    recording = recordings[number]
    maker = PatchMaker(spec, recording.sample_rate)
    try:
        for channel in np.unique(segments.channel[own]):
            of_channel = own[segments.channel[own] == channel]
            spans = [
                (int(segments.onset[k]), int(segments.offset[k])) for k in of_channel
            ]

            def keep(
                k: int, patch: Patches, places: NDArray[np.int64] = of_channel
            ) -> None:
                out[places[k]] = patch

            each_patch(Path(recording.path), int(channel), spans, maker, keep)
    except AudioFileError as error:
        return str(error)
    return None


def each_patch(
    path: Path,
    channel: int,
    spans: Sequence[tuple[int, int]],
    maker: PatchMaker,
    keep: Callable[[int, Patches], None],
) -> None:
    """Compute the patch of each segment of a channel, with half a minute in memory.

    Parameters
    ----------
    path : Path
        The recording.
    channel : int
        From 1.
    spans : sequence of (int, int)
        Onset and offset in samples, by onset.
    maker : PatchMaker
        Computes them.
    keep : callable
        Receives the index of a segment and its patch.

    Raises
    ------
    AudioFileError
        The recording cannot be read.
    """
    header = inspect(path)
    window = max(1, round(_WINDOW_S * header.sample_rate))
    margin = maker.frame_length
    held = np.zeros(0, np.float32)
    start, done = 0, 0
    with closing(Recording(header)) as recording:
        recording.open()
        while done < len(spans):
            block = recording.read(window)[:, channel - 1]
            block = np.nan_to_num(block, posinf=0.0, neginf=0.0)
            ended = len(block) < window
            held = np.concatenate([held, block])
            if not len(held):
                return
            floor = maker.floor(block if len(block) >= window // 2 else held)
            stop = start + len(held)
            while done < len(spans):
                onset, offset = spans[done]
                # What is longer than the window is seen by its first part.
                offset = min(offset, onset + window)
                if offset + margin > stop and not ended:
                    break
                keep(done, maker.patch(held, onset - start, offset - start, floor))
                done += 1
            if ended:
                return
            needed = spans[done][0] - margin if done < len(spans) else stop
            cut = int(np.clip(needed - start, 0, len(held)))
            held, start = held[cut:], start + cut

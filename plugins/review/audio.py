"""Sound of recordings under review: samples, spectrograms and WAV of a part."""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import AudioFileError, Block, Float32
from neurovocal.engine.audio.resampler import scaled
from neurovocal.plugins.features.options import SpectrogramOptions
from neurovocal.plugins.features.spectrogram import Spectrogram
from neurovocal.plugins.review.segments import AudioPiece, Recording
from neurovocal.plugins.sources.audio_files.file import (
    Recording as AudioFile,
)
from neurovocal.plugins.sources.audio_files.file import (
    RecordingHeader,
    inspect,
)

_FRAME_S = 0.008
_SHORTEST, _LONGEST = 64, 4096  # samples of a frame
_MOST_COLUMNS, _MOST_ROWS = 4096, 256
_MOST_WINDOW_S = 60.0
_LEAST_RANGE_DB, _MOST_RANGE_DB = 25.0, 90.0
_QUIET_PERCENTILE, _LOUD_PERCENTILE = 20.0, 99.9
_FLOOR = 1e-14  # power density that silence has
_MOST_OPEN = 8
_SKIP = 2**18  # samples read at once where a format cannot seek
_LOUD = 0.7


@dataclass(frozen=True)
class Columns:
    """Spectrogram of a part of a recording.

    Parameters
    ----------
    values : uint8[n_columns, n_rows]
        0 stands for `low_db`, 255 for `high_db`; the lowest frequency first.
    start, stop : int
        Samples of the recording that were asked for.
    column_s : float
        Seconds that a column stands for; the first one begins at `start`.
    low_hz, high_hz : float
        Centres of the first and the last row.
    low_db, high_db : float
        Power density in dB re full scale squared per Hz.
    """

    values: NDArray[np.uint8]
    start: int
    stop: int
    column_s: float
    low_hz: float
    high_hz: float
    low_db: float
    high_db: float


class RecordingAudio:
    """Reads the sound of recordings; a few files stay open, threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[AudioFile, int]] = OrderedDict()

    def read(self, recording: Recording, first: int, last: int) -> Float32:
        """Return float32[n_samples] of a part.

        Parameters
        ----------
        recording : Recording
            Its audio files are read.
        first, last : int
            The part, at the rate of the audio files (`range_of`); what lies outside
            of the files is silence.

        Raises
        ------
        AudioFileError
            There is no sound, and the sentence says which file is missing.
        """
        if recording.problem or not recording.audio:
            raise AudioFileError(recording.problem or "this recording has no sound")
        samples = np.zeros(max(0, last - first), np.float32)
        with self._lock:
            for piece in recording.audio:
                end = None if piece.n_samples is None else piece.start + piece.n_samples
                low = max(first, piece.start)
                high = last if end is None else min(last, end)
                if low >= high:
                    continue
                part = self._read(piece, piece.first + low - piece.start, high - low)
                samples[low - first : low - first + len(part)] = part
        return samples

    def range_of(self, recording: Recording, start: int, stop: int) -> tuple[int, int]:
        """Return positions of a recording at the rate of its audio files."""
        rates = recording.sample_rate, recording.audio_rate or recording.sample_rate
        return max(0, scaled(start, *rates)), max(0, scaled(stop, *rates))

    def covered(self, recording: Recording, start: int, stop: int) -> bool:
        """Return whether the audio files hold all samples of a part."""
        at, last = self.range_of(recording, start, stop)
        for piece in sorted(recording.audio, key=lambda each: each.start):
            end = last if piece.n_samples is None else piece.start + piece.n_samples
            if piece.start <= at < end:
                at = end
        return at >= last

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._files:
                self._files.popitem()[1][0].close()

    def _read(self, piece: AudioPiece, first: int, n_samples: int) -> Float32:
        """Return samples of a file, fewer at its end."""
        file, at = self._opened(piece.path, first)
        parts, left = [], n_samples
        while at < first:  # a format that cannot seek
            skipped = len(file.read(min(_SKIP, first - at)))
            if not skipped:
                break
            at += skipped
        while left > 0 and len(block := file.read(min(left, _SKIP))):
            picked = block[:, [channel - 1 for channel in piece.channels]]
            parts.append(picked.mean(axis=1, dtype=np.float32))
            left -= len(block)
            at += len(block)
        if left > 0:  # read to its end, it gives nothing more
            file.close()
        else:
            self._files[piece.path] = file, at
        if not parts:
            return np.zeros(0, np.float32)
        samples: Float32 = np.nan_to_num(
            np.concatenate(parts)[:n_samples], posinf=0.0, neginf=0.0
        )
        return samples

    def _opened(self, path: str, first: int) -> tuple[AudioFile, int]:
        """Return an open file, at a sample or before it, and its position."""
        kept = self._files.pop(path, None)
        if kept is not None:
            file, at = kept
            try:
                file.seek(first)
                return file, first
            except AudioFileError:
                if at <= first:
                    return file, at
                file.close()
        file = AudioFile(inspect(Path(path)))
        file.open()
        while len(self._files) >= _MOST_OPEN:
            self._files.popitem(last=False)[1][0].close()
        try:
            file.seek(first)
        except AudioFileError:
            return file, 0
        return file, first


def header_of(path: Path) -> RecordingHeader:
    """Return the header of an audio file.

    Raises
    ------
    AudioFileError
        The file is missing, or cannot be read.
    """
    if not path.exists():
        raise AudioFileError(f"'{path}' is missing")
    return inspect(path)


def spectrogram(
    audio: RecordingAudio, recording: Recording, start: int, stop: int, n_columns: int
) -> Columns:
    """Compute the spectrogram of a part of a recording with the engine's front end.

    Parameters
    ----------
    audio : RecordingAudio
        Reads the samples.
    recording : Recording
        Its positions count at its own rate.
    start, stop : int
        The part, a minute at most.
    n_columns : int
        Number of columns at most.

    Raises
    ------
    AudioFileError
        There is no sound.
    """
    stop = min(stop, start + round(_MOST_WINDOW_S * recording.sample_rate))
    rate = recording.audio_rate or recording.sample_rate
    n_columns = min(max(1, n_columns), _MOST_COLUMNS)
    length = 2 ** round(np.log2(rate * _FRAME_S))
    length = min(max(int(length), _SHORTEST), _LONGEST)
    first, last = audio.range_of(recording, start, stop)
    hop = max(1, (last - first) // n_columns)
    # Columns of a wide view are the loudest of several frames: no call falls between.
    within = -(-hop // (length // 2)) if hop > length // 2 else 1
    hop = max(1, hop // within)
    options = SpectrogramOptions(
        frame_length=length, hop_length=hop, window="hann", scale="log", floor=_FLOOR
    )
    stage = Spectrogram(options, rate, Path())
    # Column k is computed around the middle of its samples.
    lead = length // 2 - hop // 2
    n_frames = max(1, -(-(last - first) // hop))
    stop_at = first - lead + (n_frames - 1) * hop + length
    samples = audio.read(recording, first - lead, stop_at)
    frames = [f.values for f in stage.process(Block(0, samples[:, None]))]
    values = np.concatenate([np.empty((0, stage.n_bins), np.float32), *frames])
    values = 10 * _pooled(values[:n_frames], within, 0)
    rows = -(-stage.n_bins // _MOST_ROWS)
    values = _pooled(values, rows, 1)
    low, high = _range_db(values)
    scale = 255 / (high - low)
    levels = np.clip((values - low) * scale, 0, 255).astype(np.uint8)
    hz = stage.frequencies_hz
    column_s = hop * within / rate
    return Columns(
        levels, start, stop, column_s, float(hz[0]), float(hz[-1]), low, high
    )


def wav(samples: Float32, rate: int, speed: float) -> bytes:
    """Return a sound as WAV of 16 bits, raised to a comfortable level.

    Parameters
    ----------
    samples : float32[n_samples]
        The sound.
    rate : int
        Its rate in Hz.
    speed : float
        0.1 plays it ten times slower: the rate in the file is lower.
    """
    import soundfile

    peak = float(np.abs(samples).max(initial=0.0))
    gain = min(_LOUD / peak, 1000.0) if peak > 0 else 1.0
    content = io.BytesIO()
    slow = max(1000, round(rate * speed))
    soundfile.write(content, samples * gain, slow, format="WAV", subtype="PCM_16")
    return content.getvalue()


def _pooled(values: NDArray[Any], factor: int, axis: int) -> NDArray[Any]:
    """Return the largest of each `factor` neighbours along an axis."""
    if factor <= 1 or not values.size:
        return values
    starts = np.arange(0, values.shape[axis], factor)
    pooled: NDArray[Any] = np.maximum.reduceat(values, starts, axis=axis)
    return pooled


def _range_db(values: NDArray[Any]) -> tuple[float, float]:
    """Return the levels in dB that are drawn darkest and brightest."""
    if not values.size:
        return -120.0, -20.0
    low, high = np.percentile(values, [_QUIET_PERCENTILE, _LOUD_PERCENTILE])
    high = max(high, low + _LEAST_RANGE_DB)
    return float(max(low, high - _MOST_RANGE_DB)), float(high)

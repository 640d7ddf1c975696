"""Source of synthetic song-like sounds with exactly known onsets."""

from collections.abc import Iterator
from functools import cached_property
from itertools import count
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    EndOfStream,
    Float32,
    Options,
    Plugin,
    SourceItem,
    StreamInfo,
    to_samples,
)
from neurovocal.engine.audio.channels import Pacer
from neurovocal.engine.contracts.options import (
    DAY_MS,
    HIGHEST_RATE,
    YEAR_S,
    BlockLength,
    Seed,
)

_Milliseconds: TypeAlias = Annotated[float, Field(ge=0, le=DAY_MS)]
_Range: TypeAlias = tuple[_Milliseconds, _Milliseconds]  # in either order
_UNIT_RMS = 0.1
_EDGE_MS = 4.0
# Streams of random numbers: one per purpose, so that draws do not shift each other.
_UNITS, _PLAN, _NOISE = 0, 1, 2


class SyntheticOptions(Options):
    """Options of the ``synthetic`` source."""

    sample_rate: int = Field(default=32_000, ge=1000, le=HIGHEST_RATE)
    """Hz; the units' frequencies follow it."""
    duration_s: float | None = Field(default=10.0, gt=0, le=YEAR_S)
    """Length; null: without end."""
    seed: Seed = 0
    """The same seed gives the same sound, bit for bit."""
    n_units: int = Field(default=5, ge=1, le=26)
    """Size of the repertoire; units are named `a`, `b`, `c` ..."""
    unit_ms: _Range = (40.0, 120.0)
    """Shortest and longest unit."""
    silence_ms: _Range = (30.0, 100.0)
    """Shortest and longest silence between two units of a song."""
    song_length: int = Field(default=8, ge=1, le=10_000)
    """Units in a song."""
    pause_ms: _Range = (400.0, 1200.0)
    """Shortest and longest silence between two songs."""
    snr_db: float = Field(default=30.0, ge=-400, le=400)
    """Level of the units (RMS) over that of the background noise."""
    pace: Literal["asap", "realtime"] = "asap"
    """As fast as it goes, or at the pace of hearing."""
    block_length: BlockLength | None = None
    """Samples per block; by default 8192, or 10 ms at the pace of hearing."""


class Truth(NamedTuple):
    """A unit with its interval ``[onset, offset)`` in samples."""

    onset: int
    offset: int
    unit: str


class SyntheticSource:
    """Source of songs of sweeps, harmonic stacks and noise bursts over a noise floor.

    Song, units and noise are functions of the seed and of a unit's number alone:
    neither the block length nor the duration changes the samples before the end. A
    unit that would not end in time is left out.
    """

    live = False

    def __init__(self, options: SyntheticOptions, context: BuildContext) -> None:
        self._options = options
        self._context = context
        rate = options.sample_rate
        self._stop = (
            None if options.duration_s is None else round(options.duration_s * rate)
        )
        default = max(1, rate // 100) if options.pace == "realtime" else 8192
        self._length = options.block_length or default
        self._blocks: Iterator[Block] = iter(())
        self._block: Block | None = None

    @property
    def info(self) -> StreamInfo:
        """The stream: one channel at the configured rate."""
        return StreamInfo(self._context.stream, self._options.sample_rate, 1)

    def open(self) -> None:
        """Start at the first sample."""
        realtime = self._options.pace == "realtime"
        rate = self._options.sample_rate
        self._pacer = Pacer(self._context.clock, rate, realtime)
        self._pacer.begin()
        self._blocks = self._cut()
        self._block = None

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next block, or None while it is not due."""
        if self._block is None:
            self._block = next(self._blocks, None)
            if self._block is None:
                raise EndOfStream
        block = self._block
        if not self._pacer.wait(block.stop, timeout):
            return None
        self._block = None
        due_ns = self._pacer.due_ns(block.stop)
        return Block(block.start, block.samples, due_ns)

    def close(self) -> None:
        """Stop the stream."""
        self._blocks = iter(())
        self._block = None

    def truth(self, stop: int | None = None) -> list[Truth]:
        """Return the units that end at or before sample `stop`, by default the end.

        Raises
        ------
        ValueError
            Neither `stop` nor a duration is given: the list would have no end.
        """
        limits = [limit for limit in (stop, self._stop) if limit is not None]
        if not limits:
            raise ValueError("an endless source has no whole truth: give a stop")
        found = []
        for onset, offset, index in self._plan():
            if offset > min(limits):
                break
            found.append(Truth(onset, offset, chr(ord("a") + index)))
        return found

    def _plan(self) -> Iterator[tuple[int, int, int]]:
        """Yield (onset, offset, unit index) of every unit, without end."""
        options = self._options
        position = 0
        for number in count():
            rng = np.random.default_rng([options.seed, _PLAN, number])
            first = number % options.song_length == 0
            bounds = options.pause_ms if first else options.silence_ms
            onset = position + self._samples(_between(rng, bounds))
            index = int(rng.integers(options.n_units))
            position = onset + len(self._units[index])
            yield onset, position, index

    def _cut(self) -> Iterator[Block]:
        """Yield the stream in blocks of the configured length."""
        parts: list[Float32] = []
        start = held = 0
        for part in self._parts():
            parts.append(part)
            held += len(part)
            if held < self._length:
                continue
            samples = np.concatenate(parts)
            whole = held // self._length * self._length
            for first in range(0, whole, self._length):
                block = samples[first : first + self._length]
                yield Block(start + first, block[:, None])
            parts, start, held = [samples[whole:]], start + whole, held - whole
        if held:
            yield Block(start, np.concatenate(parts)[:, None])

    def _parts(self) -> Iterator[Float32]:
        """Yield each unit with the silence before it, then the rest before the end."""
        noise_rms = np.float32(_UNIT_RMS * 10 ** (-self._options.snr_db / 20))
        position = 0
        for number, (onset, offset, index) in enumerate(self._plan()):
            rng = np.random.default_rng([self._options.seed, _NOISE, number])
            part = rng.standard_normal(offset - position, np.float32) * noise_rms
            if self._stop is not None and offset > self._stop:
                yield part[: self._stop - position]
                return
            part[onset - position :] += self._units[index]
            yield part
            position = offset

    @cached_property
    def _units(self) -> list[Float32]:
        return [self._unit(index) for index in range(self._options.n_units)]

    def _unit(self, index: int) -> Float32:
        """Return the waveform of a unit: a sweep, a harmonic stack or a noise burst."""
        options = self._options
        rng = np.random.default_rng([options.seed, _UNITS, index])
        length = max(8, self._samples(_between(rng, options.unit_ms)))
        time = np.arange(length)
        wave: NDArray[np.float64]
        if index % 3 == 0:
            start, stop = rng.uniform(0.05, 0.3, 2)
            phase = start * time + (stop - start) * time**2 / (2 * length)
            wave = np.cos(2 * np.pi * phase)
        elif index % 3 == 1:
            pitch = rng.uniform(0.02, 0.04)
            harmonics = np.arange(1, int(0.4 / pitch) + 1)
            weights = rng.uniform(0.3, 1.0, len(harmonics)) / np.sqrt(harmonics)
            wave = weights @ np.cos(2 * np.pi * pitch * np.outer(harmonics, time))
        else:
            low = rng.uniform(0.05, 0.25)
            spectrum = np.fft.rfft(rng.standard_normal(length))
            frequency = np.fft.rfftfreq(length)
            high = low + max(0.1, 1.5 / length)  # contains at least one frequency
            spectrum[(frequency < low) | (frequency > high)] = 0
            wave = np.fft.irfft(spectrum, length)
        edge = min(self._samples(_EDGE_MS), length // 2)
        # Above 0 at both ends, so that onset and offset are exact.
        rise = np.sin(0.5 * np.pi * (np.arange(edge) + 1) / (edge + 1)) ** 2
        wave[:edge] *= rise
        wave[length - edge :] *= rise[::-1]
        wave *= _UNIT_RMS / np.sqrt(np.mean(wave**2))
        return wave.astype(np.float32)

    def _samples(self, span_ms: float) -> int:
        return max(1, to_samples(span_ms, self._options.sample_rate))


def _between(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return rng.uniform(min(bounds), max(bounds))


def _build(options: SyntheticOptions, context: BuildContext) -> SyntheticSource:
    return SyntheticSource(options, context)


plugin = Plugin(
    kind="source",
    options=SyntheticOptions,
    build=_build,
    summary="Seeded song-like units whose onsets are known exactly",
    sample_rate=lambda options, context: options.sample_rate,
)

"""Level of log-spaced bands above their own running noise floors, one row per hop."""

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine import Block, ConfigError, Float32, Gap, Options
from neurovocal.engine.contracts.options import DAY_S, HIGHEST_HZ
from neurovocal.plugins.detectors.band_level import (
    EDGE,
    ULTRASONIC_RATE,
    bin_shares,
    default_band,
    empty_band_problem,
    independent_cells,
    noise_quantile_db,
)
from neurovocal.plugins.detectors.noise_floor import (
    BandFloors,
    FirstLevels,
    Interruption,
    lower_neighbours,
)

N_BANDS = 32
LEAST_DB = -20.0  # lowest excess: digital silence is no quieter than this

_NARROWBAND_RATE = 8000
# The floor is this quantile of recent levels, and in the first second a lower one, as
# calls may leave few pauses in it. Still lower ones are too uncertain.
_QUANTILE, _YOUNG_QUANTILE = 0.15, 0.08
# Time between updates of the floors, and in the first second of a stream.
_UPDATE_S, _YOUNG_UPDATE_S = 0.256, 0.016
_YOUNG_S = 1.0
_PRIOR_S = 1.0  # weight of a prior: that of so much sound
_LEAST_FRAME = 8  # samples
_MOST_FRAME = 2**16
SILENT_DB = -130.0  # of a band: below lies digital silence only
# A sound card may begin with zeros and then deliver a steady level: up to this one,
# over all bands, it is taken for the background, above for a sound.
_LOUDEST_BACKGROUND_DB = -40.0
# In the first second a floor is at most so far above the lower ones of its neighbours.
_ABOVE_NEIGHBOURS_DB = 10.0
_DB_PER_OCTAVE = np.float32(10 * np.log10(2))
_TINY, _HUGE = 1e-14, 1e4


BandLevelDb: TypeAlias = Annotated[float, Field(ge=-200, le=20)]


class FloorOptions(Options):
    """Bands and noise floors of a detector that works on `BandExcess`."""

    low_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Lower edge of the lowest band; by default 1/32 of the rate, at most 500 Hz, and
    20 kHz where the rate is above 96 kHz."""
    high_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Upper edge of the highest band; by default 0.45 of the rate."""
    frame_ms: float | None = Field(default=None, ge=0.01, le=1000)
    """Length of a frame; by default 8 ms, 2 ms where the rate is above 96 kHz, 12 ms
    where it is below 8 kHz."""
    hop_ms: float | None = Field(default=None, ge=0.01, le=1000)
    """Time between frames; by default 2 ms, 1 ms where the rate is above 96 kHz."""
    memory_s: float = Field(default=1.2, ge=0.01, le=DAY_S)
    """How long levels are remembered (time constant)."""
    settle_s: float = Field(default=0.1, ge=0, le=3600)
    """At the start of a stream, and after an interruption longer than the memory,
    levels are held back for so long; not where `floor_db` is given."""
    floor_db: tuple[BandLevelDb, ...] | None = None
    """Noise floor of the room, with which a stream starts: mean level of each band in
    dB re full scale, one number for each of the 32 bands, as `measure_floor` gives
    them."""
    floor_rate: int | None = Field(default=None, ge=1, le=2 * round(HIGHEST_HZ))
    """Sample rate of the recordings that `floor_db` was measured in: a stream of
    another rate has other bands, and starts without it. By default it is that of the
    stream."""
    least_floor_db: float = Field(default=-110.0, ge=-130, le=0)
    """The noise floor of a band is never taken to be lower than this (dB re full scale,
    mean square), as in digital silence."""


def prior_floor(options: FloorOptions, sample_rate: int) -> tuple[float, ...] | None:
    """Return the noise floor in dB with which a stream of a rate in Hz starts."""
    is_same = options.floor_rate in (None, sample_rate)
    return options.floor_db if is_same else None


class Framing(NamedTuple):
    """Frames and bands of a stream.

    Parameters
    ----------
    frame_length, hop_length : int
        In samples.
    edges_hz : float64[n_bands + 1]
        Edges of the bands.
    """

    frame_length: int
    hop_length: int
    edges_hz: NDArray[np.float64]


def framing(options: FloorOptions, sample_rate: int) -> Framing:
    """Return frame length, hop length and band edges for a sample rate in Hz.

    Raises
    ------
    ConfigError
        There is no band between the edges, or a frame is too short or too long.
    """
    frame_ms, hop_ms = 8.0, 2.0
    if sample_rate > ULTRASONIC_RATE:
        frame_ms, hop_ms = 2.0, 1.0
    elif sample_rate < _NARROWBAND_RATE:
        frame_ms = 12.0
    frame_ms = options.frame_ms or frame_ms
    hop_ms = options.hop_ms or hop_ms
    frame_length = max(_LEAST_FRAME, round(frame_ms * sample_rate / 1000))
    hop_length = max(1, round(hop_ms * sample_rate / 1000))
    low, high = options.low_hz or default_band(sample_rate)[0], EDGE * sample_rate
    high = min(options.high_hz or high, high)
    problems = []
    if empty := empty_band_problem(low, high, sample_rate):
        problems.append(empty)
    if hop_length > frame_length:
        problems.append(
            f"frames of {frame_ms:g} ms every {hop_ms:g} ms leave samples out: lower "
            "hop_ms or raise frame_ms"
        )
    if frame_length > _MOST_FRAME:
        problems.append(
            f"a frame of {frame_ms:g} ms has {frame_length} samples at {sample_rate} "
            f"Hz, at most {_MOST_FRAME} are possible: lower frame_ms"
        )
    n_floors = N_BANDS if options.floor_db is None else len(options.floor_db)
    if n_floors != N_BANDS:
        problems.append(
            f"floor_db has {n_floors} numbers, there are {N_BANDS} bands: measure it "
            "again"
        )
    if problems:
        raise ConfigError(problems)
    return Framing(frame_length, hop_length, np.geomspace(low, high, N_BANDS + 1))


class BandExcess:
    """Converter of samples to the level of each band above its noise floor.

    Row k belongs to the frame of samples ``[k * hop_length, k * hop_length +
    frame_length)`` of the stream. 0 dB is the mean level of the noise in the band:
    neither the gain of the microphone nor the colour of the noise is left. The number
    of bands is the same at all sample rates.

    Parameters
    ----------
    options : FloorOptions
        Frames, bands and memory of the floors.
    sample_rate : int
        Rate of the samples in Hz.

    Attributes
    ----------
    frame_length, hop_length : int
        In samples.
    edges_hz : float64[33]
        Edges of the bands.
    cells : float64[32]
        Independent values that the power in a band is a sum of, at least 1.
    latency : int
        Look-ahead in samples, the rows held back at the start included.
    quantile, memory_hops, update_hops : float, float, int
        Quantile that is the floor of settled bands, its memory, and the number of hops
        between its updates.
    first_levels : FirstLevels
        Levels and floors of the first second. A new object after a reset: who needs the
        old one keeps it over `flush` and `gap`.

    Raises
    ------
    ConfigError
        The options are impossible at this rate.

    Notes
    -----
    Frames (Hann window, mean removed) are transformed and summed row by row, and floors
    change at multiples of the hop grid: the rows do not depend on how blocks are cut.

    The floor is the 15 % quantile of recent levels. In Gaussian noise the power of a
    band of n independent cells is distributed as chi-squared with 2 n degrees of
    freedom, which gives the mean level from the quantile. In the first
    second it is the 8 % quantile, as calls may leave few pauses in it.

    Without a prior the rows of the first `settle_s` are held back until the floors are
    known from them. A sound that was there from the start is not told from noise that
    soon: in the first second no floor is more than 10 dB above the lower ones among the
    bands next to it, since noise has no lines. Digital silence before the first sound
    is no sound of the room and left out. If there is none in the first second of sound,
    later silence (a card that drops out) is left out, too; otherwise silence is the
    background.
    """

    quantile = _QUANTILE

    def __init__(self, options: FloorOptions, sample_rate: int) -> None:
        from scipy.fft import next_fast_len  # slow to import

        self.frame_length, self.hop_length, self.edges_hz = framing(
            options, sample_rate
        )
        hops_per_s = sample_rate / self.hop_length
        n_fft = next_fast_len(self.frame_length, real=True)
        # Without the zeros at both ends, which would be lost samples.
        window = np.hanning(self.frame_length + 2)[1:-1]
        # With it, the sum over all bins of noise is its mean square.
        window *= np.sqrt(2.0 / (n_fft * np.square(window).sum()))
        self._window = window.astype(np.float32)
        self._n_fft = n_fft
        shares = bin_shares(self.edges_hz * n_fft / sample_rate, n_fft // 2 + 1)
        self.cells = independent_cells(shares, window, n_fft)
        # The bins of each band in a row, as a matrix product's last bits depend on the
        # number of its rows.
        bands, self._bins = np.nonzero(shares.T)
        self._bin_shares = shares[self._bins, bands]
        self._first_bins = np.searchsorted(bands, np.arange(N_BANDS))
        self._quantile_db = noise_quantile_db(_QUANTILE, self.cells)
        self._young_quantile_db = noise_quantile_db(_YOUNG_QUANTILE, self.cells)

        self._least_db = options.least_floor_db
        prior = prior_floor(options, sample_rate)
        self._prior = None if prior is None else np.array(prior) + self._quantile_db
        self._prior_weight = _PRIOR_S * hops_per_s
        self._settle = (
            0 if prior is not None else max(1, round(options.settle_s * hops_per_s))
        )
        self._young = round(_YOUNG_S * hops_per_s)
        self.update_hops = max(1, round(_UPDATE_S * hops_per_s))
        self._young_every = max(1, round(_YOUNG_UPDATE_S * hops_per_s))
        self.memory_hops = options.memory_s * hops_per_s
        self._floors = BandFloors(N_BANDS, self.memory_hops)
        self._interruption = Interruption(round(options.memory_s * sample_rate))
        self.latency = self.frame_length + self._settle * self.hop_length
        self._clear()
        self.reset()

    @property
    def floor_db(self) -> NDArray[np.float64]:
        """Mean level of the noise in each band now, dB re full scale, float64[32]."""
        return self._floor.astype(np.float64)

    @property
    def is_steady(self) -> bool:
        """True if from here on nothing but the floors changes."""
        return (
            self._is_settled
            and self._n_heard >= self._young
            and self.first_levels.is_settled
        )

    @property
    def n_heard(self) -> int:
        """Number of hops with sound that the floors are known from, without a prior."""
        return self._n_heard

    def reset(self) -> None:
        """Return to the state of a new object."""
        self._floors.reset()
        self._n_heard = 0
        self._has_noise = False  # the background is not digital silence
        self._heard_silence = False  # after the first sound
        self._starts_silent = False
        self._held: list[Float32] = []  # levels before the floors are known
        self._n_held = 0
        self._first_held = 0
        self._pending: list[Float32] = []  # levels that are not in the floors yet
        self._floor = np.full(N_BANDS, self._least_db, np.float32)
        self._is_settled = self._prior is not None
        self.first_levels = FirstLevels(is_settled=self._is_settled)
        if self._prior is not None:
            self._floors.seed(self._prior, self._prior_weight)
            self._set_floor(self._prior - self._quantile_db)
        self._interruption.end()
        self._clear()

    def push(self, block: Block) -> tuple[int, Float32]:
        """Return the first hop and the rows that `block` completes.

        Returns
        -------
        first : int
            Index of the first row on the stream's grid.
        excess : float32[n_hops, 32]
            In dB, at least -20.
        """
        first, levels = self._levels(block)
        if len(levels) == 0:
            return first, levels
        return self.above_floor(first, levels)

    def levels(self, samples: Float32) -> Float32:
        """Return the levels of a recording from its beginning, without floors.

        Parameters
        ----------
        samples : float32[n_samples]
            One channel.

        Returns
        -------
        float32[n_hops, 32]
            dB re full scale; the object is reset.
        """
        self.reset()
        _, levels = self._levels(Block(0, samples[:, None]))
        self.reset()
        return levels

    def floor_of(self, levels: Float32) -> tuple[float, ...]:
        """Return the noise floor of levels without calls, as a value for `floor_db`.

        Parameters
        ----------
        levels : float32[n_hops, 32]
            Of at least one hop, in dB re full scale.
        """
        floor = np.quantile(levels, _QUANTILE, axis=0) - self._quantile_db
        return tuple(np.round(np.maximum(floor, self._least_db), 1).tolist())

    def flush(self) -> tuple[int, Float32]:
        """Return the rows that are held back, at the end of the stream; then reset."""
        rows = self._finish()
        self.reset()
        return rows

    def gap(self, gap: Gap) -> tuple[int, Float32]:
        """Return the rows that are held back, and begin anew after lost samples.

        The floors are kept, except where more than the memory is lost or another
        recording begins.
        """
        rows = self._finish()
        if self._interruption.is_too_long(gap):
            self.reset()
        else:
            self._clear()
        return rows

    def _clear(self) -> None:
        """Forget the incomplete frame: the next block may start anywhere."""
        self._tail: Float32 | None = None
        self._next = 0  # hop that the first sample of the tail begins
        self._skip = 0

    def _finish(self) -> tuple[int, Float32]:
        if self._n_held == 0:
            self._update()
            return self._next, np.empty((0, N_BANDS), np.float32)
        first, levels = self._first_held, np.concatenate(self._held)
        self._settle_on(levels)
        return first, self._excess(first, levels)

    def _levels(self, block: Block) -> tuple[int, Float32]:
        """Return the levels in dB of the frames that a block completes."""
        samples = block.samples[:, 0]
        if self._tail is None:
            if len(samples) == 0:
                return 0, np.empty((0, N_BANDS), np.float32)
            self._interruption.end()
            self._next = -(-block.start // self.hop_length)
            self._skip = self._next * self.hop_length - block.start
            self._tail = samples[:0]
        if self._skip:
            skipped = min(self._skip, len(samples))
            samples, self._skip = samples[skipped:], self._skip - skipped
        known = np.concatenate((self._tail, samples))
        count = max(0, (len(known) - self.frame_length) // self.hop_length + 1)
        first, self._next = self._next, self._next + count
        self._tail = known[count * self.hop_length :]
        # A sample that is not finite affects its own frames only: no warning.
        with np.errstate(all="ignore"):
            return first, self._transform(count, known)

    def _transform(self, count: int, samples: Float32) -> Float32:
        """Return the levels of `count` frames in dB, float32[count, 32]."""
        step = samples.strides[0]
        frames = np.ndarray(
            (count, self.frame_length),
            np.float32,
            samples,
            strides=(self.hop_length * step, step),
        )
        return self.levels_of(frames)

    def levels_of(self, frames: Float32) -> Float32:
        """Return the level of each band in frames.

        Parameters
        ----------
        frames : float32[..., frame_length]

        Returns
        -------
        float32[..., 32]
            dB re full scale. Those of a frame do not depend on other frames.
        """
        shape = (*frames.shape[:-1], N_BANDS)
        if frames.size == 0:
            return np.empty(shape, np.float32)
        power = self._power(frames).take(self._bins, axis=1)
        power *= self._bin_shares
        levels: Float32 = np.add.reduceat(power, self._first_bins, axis=1)
        # What is not a number becomes silence, what is infinite a level beyond all.
        np.fmax(levels, _TINY, out=levels)
        np.minimum(levels, _HUGE, out=levels)
        np.log2(levels, out=levels)
        levels *= _DB_PER_OCTAVE
        return levels.reshape(shape)

    def _power(self, frames: Float32) -> Float32:
        """Return the power of each bin in frames, float32[n_frames, n_bins]."""
        mean = np.add.reduce(frames, axis=-1, keepdims=True)
        mean /= self.frame_length
        centred = frames - mean
        centred *= self._window
        rows = centred.reshape(-1, self.frame_length)
        # Row by row, whatever their number, and therefore bit-stable.
        parts = np.fft.rfft(rows, self._n_fft, axis=-1).view(np.float32)
        np.multiply(parts, parts, out=parts)
        return np.add(parts[:, 0::2], parts[:, 1::2])

    def above_floor(self, first: int, levels: Float32) -> tuple[int, Float32]:
        """Return the rows that levels complete; keep back those before the floors.

        Parameters
        ----------
        first : int
            Hop of the first level.
        levels : float32[n_hops, 32]
            At least one hop, in dB re full scale.
        """
        start, done = first, []
        if not self._is_settled:
            if self._n_held == 0:
                n_silent = _leading_silence(levels)
                if n_silent:
                    self._starts_silent = True
                    done.append(np.full((n_silent, N_BANDS), LEAST_DB, np.float32))
                    first, levels = first + n_silent, levels[n_silent:]
                if len(levels):
                    self._first_held = first
            taken = levels[: self._settle - self._n_held]
            self._held.append(taken)
            self._n_held += len(taken)
            first, levels = first + len(taken), levels[len(taken) :]
            if self._n_held < self._settle:
                return start, _joined(done)
            held = np.concatenate(self._held)
            if not done:
                start = self._first_held
            self._settle_on(held)
            done.append(self._excess(self._first_held, held))
        while len(levels):
            is_young = self._n_heard < self._young
            every = self._young_every if is_young else self.update_hops
            part = levels[: every - first % every]
            done.append(self._excess(first, part))
            self._pending.append(part)
            first, levels = first + len(part), levels[len(part) :]
            if first % every == 0:
                self._update()
                if self._n_heard >= self._young and not self.first_levels.is_settled:
                    self.first_levels.settle(first, self._floor)
        return start, _joined(done)

    def _excess(self, first: int, levels: Float32) -> Float32:
        if not self.first_levels.is_settled:
            self.first_levels.add(first, levels, self._floor)
        excess: Float32 = levels - self._floor
        return np.maximum(excess, np.float32(LEAST_DB), out=excess)

    def _settle_on(self, levels: Float32) -> None:
        """Take the floors from the levels that were held back."""
        self._held, self._n_held = [], 0
        self._pending = [levels]
        self._is_settled = True
        self._update()
        if self._starts_silent and not self._heard_silence:
            loudest = _LOUDEST_BACKGROUND_DB - 10 * np.log10(N_BANDS)
            self._floors.seed(
                np.full(N_BANDS, loudest) + self._quantile_db, len(levels)
            )
            self._set_floor(np.minimum(self._floor, loudest))

    def _update(self) -> None:
        """Add the pending levels to the floors."""
        if not self._pending:
            return
        levels = np.concatenate(self._pending)
        self._pending = []
        if self._n_heard == 0:  # with a prior nothing was left out before
            levels = levels[_leading_silence(levels) :]
        is_silent = levels.max(axis=1, initial=-np.inf) < SILENT_DB
        if self._has_noise:
            levels = levels[~is_silent]
        elif is_silent.any():
            self._heard_silence = True
        if len(levels) == 0:
            return
        self._n_heard += len(levels)
        if self._n_heard >= self._young and not self._heard_silence:
            self._has_noise = True
        self._floors.update(levels)
        if self._n_heard < self._young and self._prior is None:
            floor = self._floors.values(_YOUNG_QUANTILE) - self._young_quantile_db
            floor = np.minimum(floor, lower_neighbours(floor) + _ABOVE_NEIGHBOURS_DB)
        else:
            self._floor = self.floor_from(self._floors.values(_QUANTILE))
            return
        self._set_floor(floor)

    def floor_from(self, values: NDArray[np.float64]) -> Float32:
        """Return the mean levels of noise whose quantiles are `values`.

        Parameters
        ----------
        values : float64[..., 32]
            In dB, as `BandFloors` gives them for `quantile`.

        Returns
        -------
        float32[..., 32]
            In dB, not below the least one.
        """
        floor = values - self._quantile_db
        return np.maximum(floor, self._least_db).astype(np.float32)

    def _set_floor(self, floor: NDArray[np.floating]) -> None:
        self._floor = np.maximum(floor, self._least_db).astype(np.float32)


def measure_floor(
    recordings: Iterable[tuple[Float32, int]], options: FloorOptions | None = None
) -> tuple[float, ...]:
    """Measure the noise floor of a room, in dB re full scale for each of 32 bands.

    Parameters
    ----------
    recordings : iterable of (float32[n_samples], int)
        Samples of one channel and their rate in Hz, all of one rate; calls in them
        do no harm as long as there are pauses.
    options : FloorOptions, optional
        Frames and bands; `floor_db` in them is not used.

    Returns
    -------
    tuple of float
        Value for `floor_db`: the median over the recordings, each of which counts
        once per second.

    Raises
    ------
    ValueError
        There is no sound in the recordings, or their rates differ.
    """
    options = (options or FloorOptions()).model_copy(
        update={"floor_db": None, "floor_rate": None}
    )
    floors, rates = [], set()
    for samples, sample_rate in recordings:
        rates.add(sample_rate)
        excess = BandExcess(options, sample_rate)
        for start in range(0, len(samples), sample_rate):
            part = samples[start : start + sample_rate]
            excess.push(Block(start, part[:, None]))
            if excess.n_heard:
                floors.append(excess.floor_db)
    if len(rates) > 1:
        raise ValueError(f"recordings of different rates: {sorted(rates)} Hz")
    if not floors:
        raise ValueError("the recordings are too short or silent to measure a floor")
    return tuple(np.round(np.median(floors, axis=0), 1).tolist())


def _leading_silence(levels: Float32) -> int:
    """Count the rows before the first one that is not digital silence."""
    sounding = np.flatnonzero(levels.max(axis=1) >= SILENT_DB)
    return int(sounding[0]) if len(sounding) else len(levels)


def _joined(parts: Sequence[Float32]) -> Float32:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty((0, N_BANDS), np.float32)
    return np.concatenate(parts)

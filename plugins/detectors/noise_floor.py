"""Running quantiles of levels (noise floors), and levels divided by one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32, Gap
from neurovocal.engine.support.compiled import Kernel

LOWEST_DB, HIGHEST_DB, STEP_DB = -140.0, 10.0, 0.25
# Of the levels of many bands.
_BAND_LOWEST_DB, _BAND_HIGHEST_DB, _BAND_STEP_DB = -140.0, 20.0, 1.0
_N_CELLS = round((_BAND_HIGHEST_DB - _BAND_LOWEST_DB) / _BAND_STEP_DB)
_TINY = 1e-9
# Bands on each side of one, and the quantile of all of them.
_NEIGHBOURS, _LOWER_QUANTILE = 6, 0.25

# A level below this is digital silence: rooms and preamplifiers are noisier.
DIGITAL_SILENCE = 10.0 ** (LOWEST_DB / 10)
# A sound card may begin with zeros and then deliver a steady level: below this
# one it is taken for the background, above for a sound.
LOUDEST_BACKGROUND = 10.0 ** (-40.0 / 10)


class RunningQuantile:
    """Quantile of recent levels, with exponential forgetting.

    A vocalizing animal raises the mean level but leaves gaps between sounds, and
    a low quantile follows these gaps: it falls as soon as `quantile` of the memory
    is quieter and rises only when all but that share is louder.

    Parameters
    ----------
    quantile : float
        Share of the remembered levels that lies below the value.
    memory : float
        Time constant of forgetting, in levels.
    least : float
        The value never falls below this power.

    Notes
    -----
    A histogram in steps of 0.25 dB, interpolated; cost and memory do not depend
    on `memory`.
    """

    def __init__(self, quantile: float, memory: float, least: float) -> None:
        self._quantile = quantile
        self._memory = memory
        self._least = least
        n_bins = round((HIGHEST_DB - LOWEST_DB) / STEP_DB)
        self._edges = 10.0 ** ((LOWEST_DB + STEP_DB * np.arange(1, n_bins)) / 10)
        self._n_bins = n_bins
        # Of the compiled kernel, which must not know that two of them are the same.
        self._rules = np.array(
            [quantile, memory, least, -math.inf, LOWEST_DB, STEP_DB, 10.0, 10.0]
        )
        self.reset()

    def reset(self) -> None:
        """Forget all levels."""
        self._counts = np.zeros(self._n_bins)
        self.value = self._least

    def seed(self, level: float, weight: float) -> None:
        """Begin with `weight` levels at `level`, a power, which becomes the value."""
        cell = int(self._edges.searchsorted(level, side="right"))
        self._counts[cell] += weight
        self.value = max(level, self._least)

    def update(self, levels: NDArray[np.float64]) -> None:
        """Add levels (mean squares, float64[n]) to the histogram and update `value`.

        The forgetting depends on how levels are grouped into calls: call it on a
        grid of the stream.
        """
        if len(levels) == 0:
            return
        bins = self._edges.searchsorted(levels, side="right")
        self._counts *= math.exp(-len(levels) / self._memory)
        self._counts += np.bincount(bins, minlength=self._n_bins)
        below = self._counts.cumsum()
        wanted = self._quantile * float(below[-1])
        found = int(below.searchsorted(wanted, side="left"))
        before = float(below[found - 1]) if found else 0.0
        share = (wanted - before) / float(self._counts[found])
        level_db = LOWEST_DB + STEP_DB * (found + share)
        self.value = max(10.0 ** (level_db / 10), self._least)

    def follow(
        self,
        kernel: Callable[..., Any],
        first: int,
        levels: NDArray[np.float64],
        every: int,
        since: NDArray[np.float64],
        n_since: int,
        least: float,
        ratios: NDArray[np.float64],
    ) -> int:
        """Write levels / value, with an update at each multiple of `every`, compiled.

        Parameters
        ----------
        kernel : callable
            `divide_levels`.
        first : int
            Hop of the first level.
        levels : float64[n]
        every : int
            Hops between updates.
        since : float64[every]
            Levels since the last update; changed.
        n_since : int
            Their number.
        least : float
            Lower levels are left out of updates.
        ratios : float64[n]
            Gets the ratios.

        Returns
        -------
        int
            Number of levels since the last update.
        """
        self._rules[3] = least
        n_since, self.value = kernel(
            *(first, levels, every, since, n_since),
            *(self._counts, self._edges, self._rules, self.value, ratios),
        )
        return n_since


class BandFloors:
    """Quantile of the recent levels of each band, with exponential forgetting.

    The floor of a band falls as soon as a share of what is remembered is quieter and
    rises only when all but that share is louder, so that calls with pauses between
    them do not raise it.

    Parameters
    ----------
    n_bands : int
        Number of bands.
    memory : float
        Time constant of forgetting, in hops.

    Attributes
    ----------
    counts : float64[n_bands, n_cells]
        The histograms.

    Notes
    -----
    One histogram of levels per band, in steps of 1 dB, interpolated. Cost and memory
    do not depend on `memory`.
    """

    def __init__(self, n_bands: int, memory: float) -> None:
        self._memory = memory
        self.counts = np.zeros((n_bands, _N_CELLS))
        self._rows = np.arange(n_bands)
        self._offsets = self._rows * _N_CELLS

    def reset(self) -> None:
        """Forget all levels."""
        self.counts[:] = 0

    def seed(self, floor_db: NDArray[np.float64], weight: float) -> None:
        """Add `weight` hops at the level `floor_db` (dB, float64[n_bands])."""
        cells = np.floor((floor_db - _BAND_LOWEST_DB) / _BAND_STEP_DB).astype(np.intp)
        self.counts[self._rows, np.clip(cells, 0, _N_CELLS - 1)] += weight

    def update(self, levels: Float32) -> None:
        """Add levels (dB, float32[n_hops, n_bands]) to the histograms.

        The forgetting depends on how levels are grouped into calls: call it on a grid
        of the stream.
        """
        cells = np.clip(levels, _BAND_LOWEST_DB, _BAND_HIGHEST_DB - _BAND_STEP_DB)
        cells = ((cells - _BAND_LOWEST_DB) / _BAND_STEP_DB).astype(np.intp)
        cells += self._offsets
        self.counts *= math.exp(-len(levels) / self._memory)
        added = np.bincount(cells.ravel(), minlength=self.counts.size)
        self.counts += added.reshape(self.counts.shape)

    def values(self, quantile: float) -> NDArray[np.float64]:
        """Return the floor of each band in dB, float64[n_bands].

        `seed` or `update` must have been called before.

        Parameters
        ----------
        quantile : float
            Share of the remembered levels that lies below the floor.
        """
        below = self.counts.cumsum(axis=1)
        wanted = quantile * below[:, -1]
        found = np.minimum((below < wanted[:, None]).sum(axis=1), _N_CELLS - 1)
        inside = self.counts[self._rows, found]
        before = below[self._rows, found] - inside
        share = np.clip((wanted - before) / np.maximum(inside, _TINY), 0.0, 1.0)
        floors: NDArray[np.float64] = _BAND_LOWEST_DB + _BAND_STEP_DB * (found + share)
        return floors


class FirstLevels:
    """Band levels of the beginning of a stream, until its noise floors are settled.

    What was found there can be scored again by floors of a later time.

    Parameters
    ----------
    is_settled : bool
        The floors are known from the first hop on, by a prior.
    """

    def __init__(self, is_settled: bool) -> None:
        self._parts: list[tuple[int, Float32, Float32]] = []  # first, levels, floor
        # First hop whose score is by settled floors; None: it is not known yet.
        self._settled_from = 0 if is_settled else None

    @property
    def is_settled(self) -> bool:
        """True if no more levels are needed."""
        return self._settled_from is not None

    def add(self, first: int, levels: Float32, floor: Float32) -> None:
        """Add levels of hops ``first, ...`` and the floors that they are above."""
        self._parts.append((first, levels, floor))

    def settle(self, hop: int, floor: Float32) -> None:
        """Note the settled floors, which hold from `hop` on."""
        self._settled_from = hop
        self._parts.append((hop, np.empty((0, len(floor)), np.float32), floor))

    def is_provisional(self, hop: int) -> bool:
        """Return whether floors were not settled at `hop`."""
        return self._settled_from is None or hop < self._settled_from

    def excess(self, first: int, stop: int) -> tuple[int, Float32]:
        """Return levels of hops ``first, ..., stop - 1`` above the last one's floors.

        Returns
        -------
        first : int
            First of these hops that levels are known of.
        excess : float32[n_hops, n_bands]
            In dB.
        """
        known = [part for part in self._parts if part[0] < stop]
        rows = [
            (max(first, start), levels[max(first - start, 0) : max(stop - start, 0)])
            for start, levels, _ in known
        ]
        rows = [(start, levels) for start, levels in rows if len(levels)]
        if not rows:
            return first, np.empty((0, 0), np.float32)
        return rows[0][0], np.concatenate([levels for _, levels in rows]) - known[-1][2]


class Interruption:
    """Decides at gaps whether the background from before is still that of the stream.

    It is kept across a loss of samples, in one or several gaps, of at most `memory`
    samples, and not across a join: another recording has another background.

    Parameters
    ----------
    memory : int
        Number of samples.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._lost = 0  # samples since the last one that was heard

    def end(self) -> None:
        """Note that samples come again, or that the stream ends."""
        self._lost = 0

    def is_too_long(self, gap: Gap) -> bool:
        """Return True if the background has to be forgotten at this gap."""
        self._lost += gap.stop - gap.start
        return gap.is_join or self._lost > self._memory


class RelativeLevel:
    """Levels divided by the running quantile of the levels before them.

    The first `settle` levels are held back and then divided by their own quantile.
    From then on the quantile is updated at the multiples of `every` of the stream's
    grid, and nothing is held back.

    Digital silence before the first sound is left out of the quantile. If none of
    the levels held back is digital silence, later silence (a card that drops out) is
    left out, too; otherwise silence is the background. With a prior the same is
    decided by the first `settle` levels.

    Parameters
    ----------
    reference : RunningQuantile
        Quantile that levels are divided by.
    settle : int
        Number of levels that are held back at first, at least 1.
    every : int
        Number of levels between updates of the reference.
    prior : float, optional
        Power that the reference begins with; nothing is held back then.
    prior_weight : float
        Number of levels that the prior counts for.

    Attributes
    ----------
    references : list of tuple
        First hop, number of levels and reference of the parts that were last returned,
        if they had been asked for.
    """

    def __init__(
        self,
        reference: RunningQuantile,
        settle: int,
        every: int,
        prior: float | None = None,
        prior_weight: float = 0.0,
    ) -> None:
        self._reference = reference
        self._prior = prior
        self._prior_weight = prior_weight
        self._settle = settle
        self._every = every
        # Of the compiled kernel: levels since the last update.
        self._since = np.empty(every)
        self.reset()

    def reset(self) -> None:
        """Forget all levels."""
        self._reference.reset()
        self._pending: list[NDArray[np.float64]] = []  # not in the reference yet
        self._n_held = 0
        self._first_held = 0
        self._starts_silent = False
        self._has_noise = False  # the background is not digital silence
        self.settled = False
        self.references: list[tuple[int, int, float]] = []
        self._n_heard = 0  # from the first sound on, with a prior
        self._heard_silence = False
        if self._prior is not None:
            self._reference.seed(self._prior, self._prior_weight)
            self.settled = True

    def push(
        self, first: int, levels: NDArray[np.float64], *, with_references: bool = False
    ) -> list[tuple[int, NDArray[np.float64]]]:
        """Return the ratios ``(first, float64[n])`` that these levels complete.

        Parameters
        ----------
        first : int
            Hop of the first level.
        levels : float64[n]
        with_references : bool
            Keep what they have been divided by, too.
        """
        self.references = []
        ratios: list[tuple[int, NDArray[np.float64]]] = []
        if not self.settled:
            first, levels = self._push_unsettled(first, levels, ratios)
        if len(levels) == 0:
            return ratios
        kernel = _KERNEL.call
        # With a prior, the first levels decide what silence is.
        is_simple = self._prior is None or self._has_noise
        if kernel is None or with_references or not is_simple:
            ratios.append((first, self._push_settled(first, levels)))
        else:
            ratios.append((first, self._push_compiled(kernel, first, levels)))
        return ratios

    def _push_unsettled(
        self,
        first: int,
        levels: NDArray[np.float64],
        ratios: list[tuple[int, NDArray[np.float64]]],
    ) -> tuple[int, NDArray[np.float64]]:
        """Hold levels back; return those that come after the last one held."""
        if self._n_held == 0:
            n_silent = _leading_silence(levels)
            if n_silent:
                self._starts_silent = True
                ratios.append((first, np.zeros(n_silent)))
                self.references.append((first, n_silent, self._reference.value))
                first, levels = first + n_silent, levels[n_silent:]
        if len(levels) == 0:
            return first, levels
        if self._n_held == 0:
            self._first_held = first
        held = levels[: self._settle - self._n_held]
        self._pending.append(held)
        self._n_held += len(held)
        if self._n_held == self._settle:
            ratios += self._release()
        return first + len(held), levels[len(held) :]

    def _push_settled(
        self, first: int, levels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the ratios of all levels, and update the reference on its grid."""
        ratios = np.empty(len(levels))
        done = 0
        while done < len(levels):
            part = levels[done : done + self._every - first % self._every]
            stop = done + len(part)
            np.divide(part, self._reference.value, out=ratios[done:stop])
            self.references.append((first, len(part), self._reference.value))
            self._pending.append(part)
            first, done = first + len(part), stop
            if first % self._every == 0:
                self._update()
        return ratios

    def _push_compiled(
        self, kernel: Callable[..., Any], first: int, levels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the same as `_push_settled`, in one call."""
        n_since = 0
        for part in self._pending:
            self._since[n_since : n_since + len(part)] = part
            n_since += len(part)
        ratios = np.empty(len(levels))
        n_since = self._reference.follow(
            kernel,
            *(first, levels, self._every, self._since, n_since),
            DIGITAL_SILENCE if self._has_noise else -math.inf,
            ratios,
        )
        self._pending = [self._since[:n_since].copy()] if n_since else []
        return ratios

    def interrupt(self) -> list[tuple[int, NDArray[np.float64]]]:
        """Return the ratios of levels still held back, before a gap or the end."""
        self.references = []
        ratios = [] if self.settled else self._release()
        self._update()
        return ratios

    def _release(self) -> list[tuple[int, NDArray[np.float64]]]:
        if not self._pending:
            return []
        held = np.concatenate(self._pending)
        self._has_noise = bool((held >= DIGITAL_SILENCE).all())
        if self._has_noise and self._starts_silent:
            self._pending.append(np.full(self._settle, LOUDEST_BACKGROUND))
        self._update()
        self.settled = True
        value = self._reference.value
        self.references.append((self._first_held, len(held), value))
        return [(self._first_held, held / value)]

    def _update(self) -> None:
        if self._pending:
            levels = np.concatenate(self._pending)
            if self._prior is not None and not self._has_noise:
                levels = self._first_levels(levels)
            if self._has_noise:
                levels = levels[levels >= DIGITAL_SILENCE]
            self._reference.update(levels)
            self._pending = []

    def _first_levels(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return levels from the first sound on, and decide what silence is."""
        if self._n_heard == 0:
            levels = levels[_leading_silence(levels) :]
        self._n_heard += len(levels)
        if (levels < DIGITAL_SILENCE).any():
            self._heard_silence = True
        if self._n_heard >= self._settle and not self._heard_silence:
            self._has_noise = True
        return levels


def _leading_silence(levels: NDArray[np.float64]) -> int:
    """Count the levels before the first one that is not digital silence."""
    sounding = np.flatnonzero(levels >= DIGITAL_SILENCE)
    return int(sounding[0]) if len(sounding) else len(levels)


def _is_equal(kernel: Callable[..., Any]) -> bool:
    """Return whether the compiled kernel gives the bits of NumPy for noise."""
    rng = np.random.default_rng(0)
    levels = 10.0 ** rng.uniform(-15, 1, 3000)
    for has_noise in (False, True):
        plain, fast = (
            RelativeLevel(RunningQuantile(0.1, 500.0, 1e-10), 1, 64) for _ in range(2)
        )
        for each in (plain, fast):
            each.settled, each._has_noise = True, has_noise
        for first in range(0, len(levels), 90):
            part = levels[first : first + 90]
            ratios = plain._push_settled(first, part)
            if not np.array_equal(fast._push_compiled(kernel, first, part), ratios):
                return False
        if not np.array_equal(plain._reference._counts, fast._reference._counts):
            return False
    return True


_KERNEL = Kernel("neurovocal.plugins.features.kernels", "divide_levels", _is_equal)


def lower_neighbours(floor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a low quantile of the bands around each band, float64[n_bands]."""
    width = 2 * _NEIGHBOURS + 1
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(floor, _NEIGHBOURS, mode="edge"), width
    )
    return np.sort(windows, axis=1)[:, int(_LOWER_QUANTILE * width)]

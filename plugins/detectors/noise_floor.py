"""Running quantiles of a level, and levels relative to them."""

import math

import numpy as np
from numpy.typing import NDArray

LOWEST_DB, HIGHEST_DB, STEP_DB = -140.0, 10.0, 0.25

# Levels below this are digital silence: no room and no preamplifier is so quiet.
DIGITAL_SILENCE = 10.0 ** (LOWEST_DB / 10)
# A sound card that begins with zeros and then delivers something steady: below
# this level it is taken for the background, above for a sound.
LOUDEST_BACKGROUND = 10.0 ** (-40.0 / 10)


class RunningQuantile:
    """Quantile of the levels heard lately, under exponential forgetting.

    A vocalizing animal raises the mean level but leaves gaps between sounds, and
    a low quantile stays in them: it falls as soon as `quantile` of the memory is
    quieter and rises only when all but that share is louder.

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
        self.reset()

    def reset(self) -> None:
        """Forget every level."""
        self._counts = np.zeros(self._n_bins)
        self.value = self._least

    def learn(self, levels: NDArray[np.float64]) -> None:
        """Take levels (mean squares, float64[n]) into account.

        What is remembered depends on how levels are grouped into calls: call it
        on a grid of the stream.
        """
        if len(levels) == 0:
            return
        bins = np.searchsorted(self._edges, levels, side="right")
        self._counts *= math.exp(-len(levels) / self._memory)
        self._counts += np.bincount(bins, minlength=self._n_bins)
        below = np.cumsum(self._counts)
        wanted = self._quantile * float(below[-1])
        found = int(np.searchsorted(below, wanted, side="left"))
        before = float(below[found - 1]) if found else 0.0
        share = (wanted - before) / float(self._counts[found])
        level_db = LOWEST_DB + STEP_DB * (found + share)
        self.value = max(10.0 ** (level_db / 10), self._least)


class RelativeLevel:
    """Levels divided by the running quantile of the levels before them.

    At first nothing is known to compare with: `settle` levels are held back and
    then divided by their own quantile. From then on the quantile is renewed at
    the multiples of `every` of the stream's grid, and nothing is held back.

    Digital silence says nothing about a background: that before the first sound
    is passed over, and where the held levels had none, later silence (a card that
    drops out) is not learned. Where they had some, it *is* the background.

    Parameters
    ----------
    reference : RunningQuantile
        What levels are compared with.
    settle : int
        Levels that are held back at first, at least 1.
    every : int
        Levels between renewals of the reference.
    """

    def __init__(self, reference: RunningQuantile, settle: int, every: int) -> None:
        self._reference = reference
        self._settle = settle
        self._every = every
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._reference.reset()
        self._fresh: list[NDArray[np.float64]] = []  # not yet in the reference
        self._n_held = 0
        self._first_held = 0
        self._began_silent = False
        self._noisy = False  # there is a background that is not digital silence
        self.settled = False

    def push(
        self, first: int, levels: NDArray[np.float64]
    ) -> list[tuple[int, NDArray[np.float64]]]:
        """Pieces ``(first, ratios)`` that become known with these levels."""
        pieces: list[tuple[int, NDArray[np.float64]]] = []
        if not self.settled and self._n_held == 0:
            silent = _leading_silence(levels)
            if silent:
                self._began_silent = True
                pieces.append((first, np.zeros(silent)))
                first, levels = first + silent, levels[silent:]
        if not self.settled and len(levels):
            if self._n_held == 0:
                self._first_held = first
            held = levels[: self._settle - self._n_held]
            self._fresh.append(held)
            self._n_held += len(held)
            if self._n_held == self._settle:
                pieces += self._release()
            first, levels = first + len(held), levels[len(held) :]
        while len(levels):
            part = levels[: self._every - first % self._every]
            pieces.append((first, part / self._reference.value))
            self._fresh.append(part)
            first, levels = first + len(part), levels[len(part) :]
            if first % self._every == 0:
                self._learn()
        return pieces

    def interrupt(self) -> list[tuple[int, NDArray[np.float64]]]:
        """No more levels for now: what is still held back, judged by itself."""
        pieces = [] if self.settled else self._release()
        self._learn()
        return pieces

    def _release(self) -> list[tuple[int, NDArray[np.float64]]]:
        if not self._fresh:
            return []
        held = np.concatenate(self._fresh)
        self._noisy = bool((held >= DIGITAL_SILENCE).all())
        if self._noisy and self._began_silent:
            self._fresh.append(np.full(self._settle, LOUDEST_BACKGROUND))
        self._learn()
        self.settled = True
        return [(self._first_held, held / self._reference.value)]

    def _learn(self) -> None:
        if self._fresh:
            levels = np.concatenate(self._fresh)
            if self._noisy:
                levels = levels[levels >= DIGITAL_SILENCE]
            self._reference.learn(levels)
            self._fresh = []


def _leading_silence(levels: NDArray[np.float64]) -> int:
    """How many levels come before the first that is not digital silence."""
    sounding = np.flatnonzero(levels >= DIGITAL_SILENCE)
    return int(sounding[0]) if len(sounding) else len(levels)

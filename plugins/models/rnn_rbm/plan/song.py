"""Plan of a song: which unit comes next, and how long it and its silence are.

The unit-level RNN-RBM, the bundle's forecast, draws the next unit from all units of
the phrase; lengths and the end of a phrase are drawn from the plan's tables. Units
that are commanded come before drawn ones.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from neurovocal.engine import Float32
from neurovocal.plugins.models.forecast import Forecaster
from neurovocal.plugins.models.rnn_rbm.plan.condition import (
    LEAD_IN_FRAMES,
    SILENCE,
    PlanItem,
    condition_rows,
)
from neurovocal.plugins.models.rnn_rbm.plan.tables import PlanTables, draw_length

# A unit so much less likely than the likeliest one is not drawn: the forecast gives
# each a little, which would add up to slips that the bird does not make.
_LEAST_SHARE = 0.05
# Silence after the last of commanded units.
_LEAD_OUT_FRAMES = 15


class SongPlan:
    """Rows of the plan, frame by frame (`condition`).

    Parameters
    ----------
    tables : PlanTables
    units : sequence of str
        Names of the units, without silence.
    forecaster : Forecaster
        Draws the units of a free song.
    hop_length : int
        Of the frames, in samples.

    Attributes
    ----------
    units : list of str
        Names of the units, without silence.
    """

    def __init__(
        self,
        tables: PlanTables,
        units: Sequence[str],
        forecaster: Forecaster,
        hop_length: int,
    ) -> None:
        self.units = list(units)
        self._tables, self._forecaster, self._hop = tables, forecaster, hop_length
        self.start((), free=False, seed=(0,))

    def start(self, units: Sequence[int], *, free: bool, seed: Sequence[int]) -> None:
        """Begin a plan, in silence.

        Parameters
        ----------
        units : sequence of int
            Units to sing first, from 1.
        free : bool
            Whether the song goes on after them with drawn units.
        seed : sequence of int
            Seed of all draws.
        """
        seeds = np.random.SeedSequence([*seed, 1])  # not that of the frames
        self._rng = np.random.Generator(np.random.SFC64(seeds))
        self._commanded = deque(units)
        self._free = free
        self._position = 0
        self._last: int | None = None
        self._forecaster.reset()
        self._at: int = 0
        self._following, self._silence = self._choose_next()
        self._begin(PlanItem(SILENCE, LEAD_IN_FRAMES))

    @property
    def has_ended(self) -> bool:
        """True if no frame is left."""
        return bool(self._at == len(self._rows))

    @property
    def unit(self) -> int:
        """Unit of the next frame, `SILENCE` in a silence."""
        return self._item.unit

    def say(self, units: Sequence[int]) -> None:
        """Sing units next, before any drawn one."""
        self._commanded.extend(units)
        if not self._is_drawn or not self._commanded:
            return
        at, item = self._at, self._item
        if item.unit == SILENCE:  # shorten a pause
            left = min(item.n_frames - at, LEAD_IN_FRAMES)
            item = PlanItem(SILENCE, at + max(1, left))
        self._following, self._silence = self._choose_next()
        self._begin(item)
        self._at = at

    def row(self) -> Float32:
        """Return the row of the next frame, float32[n_condition], and go on."""
        row: Float32 = self._rows[self._at]
        self._at += 1
        self._position += 1
        if self._at == len(self._rows):
            self._go_on()
        return row

    def _go_on(self) -> None:
        """Begin the next item, if there is one."""
        if self._item.unit == SILENCE:
            if self._following == SILENCE:
                return
            unit = self._following
            chance = float(self._rng.random())
            n = draw_length(self._tables.durations[unit - 1], chance)
            self._add_label(unit, n)
            self._following, self._silence = self._choose_next()
            self._begin(PlanItem(unit, n))
        else:
            self._begin(PlanItem(SILENCE, self._silence))

    def _begin(self, item: PlanItem) -> None:
        self._item = item
        self._at = 0
        self._rows = condition_rows(item, self._following, len(self.units))

    def _choose_next(self) -> tuple[int, int]:
        """Return the unit after the present one, and the frames of silence between."""
        self._is_drawn = not self._commanded
        if self._commanded:
            unit = self._commanded.popleft()
            return unit, self._gap(unit)
        if not self._free:
            return SILENCE, _LEAD_OUT_FRAMES
        tables, forecaster = self._tables, self._forecaster
        chance = float(self._rng.random())
        if self._last is not None and chance < tables.ends[self._last - 1]:
            forecaster.reset()
            unit = self._draw_unit(forecaster.next_log_posteriors())
            return unit, draw_length(tables.pauses, float(self._rng.random()))
        unit = self._draw_unit(forecaster.next_log_posteriors())
        return unit, self._gap(unit)

    def _draw_unit(self, log_posteriors: Float32) -> int:
        chances = np.exp(log_posteriors.astype(np.float64))
        chances[chances < _LEAST_SHARE * chances.max()] = 0
        edges = np.cumsum(chances)
        chance = float(self._rng.random()) * edges[-1]
        return 1 + int(np.searchsorted(edges[:-1], chance, "right"))

    def _gap(self, unit: int) -> int:
        """Return the frames of silence between the last unit and `unit`."""
        if self._last is None:
            return LEAD_IN_FRAMES
        quantiles = self._tables.gaps[self._last - 1, unit - 1]
        return draw_length(quantiles, float(self._rng.random()))

    def _add_label(self, unit: int, n_frames: int) -> None:
        """Tell the forecast what is sung from here on."""
        self._last = unit
        onset = self._position * self._hop
        offset = onset + n_frames * self._hop
        self._forecaster.add_label(self.units[unit - 1], onset, offset)

"""Checks of a live source's signal: flat, clipped, offset, quiet, or of a wrong rate.

A disconnected microphone, a wrong gain or a driver at another rate deliver samples all
the same; without a `Health` event the labels would be wrong or missing silently.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import Field

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.options import DAY_S, Options
from neurovocal.engine.contracts.types import (
    GAP_DEVICE_SLIP,
    Block,
    Float32,
    Gap,
    Health,
)

_WINDOW_S = 1.0
_OFF = 0.5  # share of a threshold below which a value counts as good
_QUIET_OFF_DB = 6.0


class SignalOptions(Options):
    """Watch over the signal of a live source. A threshold of null: not watched."""

    flat_s: float | None = Field(default=10.0, ge=1, le=DAY_S)
    """Seconds in which all samples are equal, as digital silence is."""
    clipped_share: float | None = Field(default=0.001, gt=0, le=1)
    """Share of the samples of a second at full scale."""
    clip_level: float = Field(default=0.999, gt=0, le=1000)
    """Full scale, as an absolute value of a sample."""
    offset: float | None = Field(default=0.05, gt=0, le=1000)
    """Mean of a second's samples, as an absolute value."""
    quiet_db: float | None = Field(default=-90.0, ge=-200, le=60)
    """Level of a second (root mean square without the mean), in dB of full scale,
    below which nothing but the converter's last bits moves."""
    rate_percent: float | None = Field(default=1.0, gt=0, le=1000)
    """Deviation of samples per second of the clock from the source's nominal rate."""
    rate_window_s: float = Field(default=60.0, ge=5, le=DAY_S)
    """Seconds over which that is counted."""
    hold_s: float = Field(default=3.0, ge=1, le=DAY_S)
    """Seconds for which trouble must last before it is reported (flat lines have
    their own), and be over before its end is reported."""


class Hysteresis:
    """State with hysteresis: bad or good checks in a row switch it on or off.

    Parameters
    ----------
    name : str
        Stage of its Health events.
    n_on, n_off : int
        Bad checks in a row that switch it on, and good ones that switch it off.
    """

    def __init__(self, name: str, n_on: int, n_off: int) -> None:
        self.active = False
        self._name = f"signal {name}"
        self._needed = (n_on, n_off)
        self._consecutive = 0

    def update(self, bad: bool, good: bool, detail: str) -> Iterator[Health]:
        """Count a check; yield a Health event if the state changes."""
        self._consecutive = (
            self._consecutive + 1 if (good if self.active else bad) else 0
        )
        if self._consecutive < self._needed[self.active]:
            return
        self.active, self._consecutive = not self.active, 0
        yield Health(self._name, "degraded" if self.active else "healthy", detail)


class SignalHealth:
    """Checks of each second of one channel's samples.

    Seconds lie on a fixed grid of the stream, and a second with a gap is not checked:
    the result depends on the samples alone. Blocks are copied into one window, which is
    checked when it is full; that takes some microseconds per second.

    Parameters
    ----------
    sample_rate : int
        Rate of the samples in Hz.
    options : SignalOptions
        Thresholds.
    """

    def __init__(self, sample_rate: int, options: SignalOptions) -> None:
        self._options = options
        self._length = round(_WINDOW_S * sample_rate)
        self._window = np.zeros(self._length, np.float32)
        self._filled = 0  # samples of this window that came, all from its start on
        hold = round(options.hold_s / _WINDOW_S)
        flat = round((options.flat_s or 0.0) / _WINDOW_S)
        self._flat = Hysteresis("flat", flat, hold)
        self._clipped = Hysteresis("clipped", hold, hold)
        self._offset = Hysteresis("offset", hold, hold)
        self._quiet = Hysteresis("quiet", hold, hold)

    def observe(self, start: int, samples: Float32) -> Iterable[Health]:
        """Check consecutive samples, float32[n_samples], from stream index `start`."""
        stop = start % self._length + len(samples)
        if stop >= self._length:
            return self._observe_across(start, samples)
        if stop - len(samples) == self._filled:
            self._window[self._filled : stop] = samples
            self._filled = stop
        return ()

    def _observe_across(self, start: int, samples: Float32) -> Iterator[Health]:
        """Check samples that reach the end of a second."""
        at = 0
        while at < len(samples):
            place = (start + at) % self._length
            part = samples[at : at + self._length - place]
            if place == self._filled:
                self._window[place : place + len(part)] = part
                self._filled += len(part)
            at += len(part)
            if self._filled == self._length:
                yield from self._check(self._window)
            if place + len(part) == self._length:
                self._filled = 0

    def skip(self) -> None:
        """Leave out the present second because of a gap."""
        self._filled = -1  # no block continues here until the next second begins

    def _check(self, window: Float32) -> Iterator[Health]:
        options = self._options
        low, high = float(window.min()), float(window.max())
        mean = float(window.mean(dtype=np.float64))
        is_flat = low == high
        if options.flat_s is not None:
            detail = f"all samples are {low:.6g}: is the microphone connected?"
            if not is_flat:
                detail = "samples move again"
            yield from self._flat.update(is_flat, not is_flat, detail)
        if options.clipped_share is not None:
            share = self._share_clipped(window, low, high)
            most = options.clipped_share
            detail = f"{share:.2%} of a second's samples are at full scale (gain?)"
            yield from self._clipped.update(share > most, share <= most * _OFF, detail)
        if options.offset is not None:
            most = options.offset
            detail = f"the mean of the samples is {mean:.4f}"
            yield from self._offset.update(
                abs(mean) > most, abs(mean) <= most * _OFF, detail
            )
        if options.quiet_db is not None:
            power = float(np.dot(window, window)) / len(window) - mean * mean
            level_db = 10 * float(np.log10(max(power, 1e-20)))
            quiet = level_db < options.quiet_db and not is_flat
            good = level_db > options.quiet_db + _QUIET_OFF_DB
            detail = f"the level is {level_db:.0f} dB of full scale (gain? cable?)"
            yield from self._quiet.update(quiet, good, detail)

    def _share_clipped(self, window: Float32, low: float, high: float) -> float:
        level = self._options.clip_level
        if high < level and low > -level:
            return 0.0
        count = np.count_nonzero(window >= level) + np.count_nonzero(window <= -level)
        return count / len(window)


class RateHealth:
    """Check of the sample rate: counts the samples that arrive against the clock.

    Gaps by slips do not restart the count: a device with a wrong rate slips repeatedly.

    Parameters
    ----------
    sample_rate : int
        Nominal rate of the source in Hz.
    options : SignalOptions
        Threshold and window.
    """

    def __init__(self, sample_rate: int, options: SignalOptions) -> None:
        self._sample_rate = sample_rate
        self._most = (options.rate_percent or 0.0) / 100
        self._span_ns = round(options.rate_window_s * NS)
        self._trouble = Hysteresis("rate", 1, 1)
        self._began_ns = 0
        self._count = 0

    def observe(self, item: Block | Gap) -> Iterable[Health]:
        """Count the samples of an item; blocks without an arrival time are ignored."""
        if isinstance(item, Gap):
            if item.reason != GAP_DEVICE_SLIP:
                self._began_ns = 0
            return ()
        if not self._most or not item.arrived_ns:
            return ()
        if not self._began_ns:  # from the end of this block on
            self._began_ns, self._count = item.arrived_ns, 0
            return ()
        self._count += len(item.samples)
        elapsed_ns = item.arrived_ns - self._began_ns
        if elapsed_ns < self._span_ns:
            return ()
        rate = self._count * NS / elapsed_ns
        off = abs(rate / self._sample_rate - 1)
        detail = f"{rate:.0f} samples a second arrive instead of {self._sample_rate}"
        self._began_ns, self._count = item.arrived_ns, 0
        return self._trouble.update(off > self._most, off <= self._most * _OFF, detail)

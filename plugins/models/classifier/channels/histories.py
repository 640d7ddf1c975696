"""Histories of the posteriors of several channels, kept in one array."""

from collections.abc import Sequence

import numpy as np

from neurovocal.plugins.models.history import Float64, PosteriorHistory, RowHistory


class ChannelHistories:
    """Running sums of log-posteriors of several channels, as `PosteriorHistory`.

    Parameters
    ----------
    parts : sequence of PosteriorHistory
        For which `are_alike` holds.

    Attributes
    ----------
    total : float64[n_channels, n_units]
        Sums over all frames.
    """

    def __init__(self, parts: Sequence[PosteriorHistory]) -> None:
        self._parts = list(parts)
        self.total: Float64 = np.array([part.total for part in parts])
        first = parts[0].sums
        self._sums = RowHistory(self.total.shape, first.keep, np.float64)
        known = np.stack([part.sums.known() for part in parts], axis=1)
        self._sums.append(first.first, known)

    @staticmethod
    def are_alike(parts: Sequence[PosteriorHistory]) -> bool:
        """Return whether all know the same frames."""
        known = parts[0].first, parts[0].stop
        return all(
            not part.is_empty and (part.first, part.stop) == known for part in parts
        )

    @property
    def first(self) -> int:
        """First known frame."""
        return self._sums.first

    @property
    def stop(self) -> int:
        """Frame after the last known one."""
        return self._sums.stop - 1

    def append(self, log_posteriors: Float64) -> None:
        """Add float64[n_channels, n_frames, n_units] of the frames from `stop` on."""
        sums = log_posteriors.swapaxes(0, 1).cumsum(axis=0)
        sums += self.total
        self._sums.append(self._sums.stop, sums)
        self.total = sums[-1]

    def sum_before(self, frame: int, channel: int) -> Float64:
        """Return one channel's sum over the known frames before `frame`."""
        at = min(max(frame, self.first), self.stop) - self.first
        row: Float64 = self._sums.known()[at, channel].copy()
        return row

    def divide(self) -> None:
        """Give each part the sums of its channel."""
        known = self._sums.known()
        for channel, part in enumerate(self._parts):
            part.replace(self.first, known[:, channel], self.total[channel].copy())


class HistoryOfChannel:
    """One channel of `ChannelHistories`, which reads as a `PosteriorHistory`."""

    is_empty = False

    def __init__(self, histories: ChannelHistories, channel: int) -> None:
        self._histories, self._channel = histories, channel

    @property
    def first(self) -> int:
        """First known frame."""
        return self._histories.first

    @property
    def stop(self) -> int:
        """Frame after the last known one."""
        return self._histories.stop

    def sum_before(self, frame: int) -> Float64:
        """Return the sum over the known frames before `frame`, float64[n_units]."""
        return self._histories.sum_before(frame, self._channel)

    def nearest(self, frame: int) -> Float64:
        """Return the log-posteriors of the known frame that is nearest to `frame`."""
        known = min(max(frame, self.first), self.stop - 1)
        one: Float64 = self.sum_before(known + 1) - self.sum_before(known)
        return one

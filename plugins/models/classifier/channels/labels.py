"""Open segments of several channels: in which of them a label may change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.plugins.models.classifier.channels.histories import ChannelHistories

if TYPE_CHECKING:
    from neurovocal.plugins.models.classifier.model import Classifier

_UNKNOWN = -1


class OpenSegments:
    """Finds the channels whose classifier would have something to say.

    Parameters
    ----------
    stages : sequence of Classifier
        With the same bundle and options.
    histories : ChannelHistories
        Sums of the log-posteriors of all channels.
    """

    def __init__(
        self, stages: "Sequence[Classifier]", histories: ChannelHistories
    ) -> None:
        self._stages = list(stages)
        self._histories = histories
        first = stages[0]
        self._decision, self._forecaster = first._decision, first._forecaster
        self._labels_early, self._prior = first._provisional, first._prior
        # Sums since the onset decide; of one frame alone, and whether a label is sure
        # enough to come early, each classifier decides.
        self._can_compare = not first._uses_last_frame and first._sure is None
        n = len(stages)
        self._segments: list[Any] = [None] * n  # whose labels are followed here
        self._units = np.full(n, _UNKNOWN)
        self._first = np.zeros(n, np.intp)
        self._ready = np.zeros(n, np.intp)  # nothing is to be said before this frame
        self._base = np.zeros_like(histories.total)
        self._forecasts = np.zeros((n, len(self._decision.voiced)))

    def look_at(self, channel: int) -> None:
        """Follow the only open segment of a channel, if there is one."""
        stage = self._stages[channel]
        self._segments[channel] = None
        if not self._can_compare or stage._closed or len(stage._open) != 1:
            return
        segment = next(iter(stage._open.values()))
        if segment.base is None:
            return
        if self._forecaster is not None and segment.forecast is None:
            return
        self._segments[channel] = segment
        self._first[channel] = segment.first
        self._ready[channel] = segment.ready if segment.unit is None else 0
        self._units[channel] = self._decision.index_of(segment.unit)
        self._base[channel] = segment.base
        if segment.forecast is not None:
            self._forecasts[channel] = segment.forecast

    def active(self) -> list[int]:
        """Return the channels in which a label or a forecast may be due, or change."""
        active, followed = [], []
        for channel, stage in enumerate(self._stages):
            if not stage._open and not stage._closed:
                continue
            segment = self._segments[channel]
            if (
                segment is None
                or stage._closed
                or len(stage._open) != 1
                or segment.segment not in stage._open
            ):
                active.append(channel)
            else:
                followed.append(channel)
        if not followed or not self._labels_early:
            return active
        due = self._changed(np.array(followed))
        return sorted(active + due) if due else active

    def _changed(self, channels: NDArray[np.intp]) -> list[int]:
        """Return those channels whose segment has its first label now, or another."""
        stop, first = self._histories.stop, self._first[channels]
        is_early = self._ready[channels] > stop
        is_first = self._ready[channels] > 0
        # Its frames are known: nothing special is to be decided.
        usual = stop > np.maximum(first, self._histories.first)
        compared = channels[~is_first & usual]
        due: list[int] = channels[
            (is_first & ~is_early) | (~is_first & ~usual)
        ].tolist()
        if not len(compared):
            return due
        sums = self._histories.total[compared] - self._base[compared]
        n_frames = (stop - self._first[compared]).tolist()
        priors = None
        if self._forecaster is not None and self._prior != "none":
            weights = [self._forecaster.weight(n) for n in n_frames]
            priors = np.array(weights)[:, None] * self._forecasts[compared]
        units = self._decision.early_units(sums, n_frames, priors)
        due += compared[units != self._units[compared]].tolist()
        return due

"""Classifiers of several channels that process together: one call of the network."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neurovocal.engine import Event, Float32, Posteriors
from neurovocal.engine.contracts.batches import ChannelFrames
from neurovocal.plugins.models.classifier.channels.histories import (
    ChannelHistories,
    HistoryOfChannel,
)
from neurovocal.plugins.models.classifier.channels.labels import OpenSegments
from neurovocal.plugins.models.history import Float64, log_softmax
from neurovocal.plugins.models.onnx.channel_network import ChannelNetwork
from neurovocal.plugins.models.onnx.session import finite

if TYPE_CHECKING:
    from neurovocal.plugins.models.classifier.model import Classifier


class ClassifierBatch:
    """Classifiers of several channels (a `StageBatch`).

    The network, the posteriors and their sums are computed for all channels at once.
    Labels are decided by each classifier, in channels where one may change.

    Parameters
    ----------
    stages : sequence of Classifier
        With the same bundle and options, at the same frame.
    """

    rows_type: type[Event] | None = Posteriors

    def __init__(self, stages: "Sequence[Classifier]") -> None:
        self._stages = list(stages)
        first = stages[0]
        self._hop, self._length = first._hop, first._length
        self._networks = [stage._network for stage in stages]
        self._network = ChannelNetwork(
            first._network._graph, [network._state for network in self._networks]
        )
        self._own = [stage._history for stage in stages]
        self._histories = ChannelHistories(self._own)
        for channel, stage in enumerate(stages):
            view: Any = HistoryOfChannel(self._histories, channel)
            stage._history = view
        self._segments = OpenSegments(stages, self._histories)
        self._first = self._histories.stop
        self._found: Float64 = np.empty((len(stages), 0, 0))
        self._posteriors: Float32 | None = None

    @classmethod
    def of(cls, stages: "Sequence[Classifier]") -> "ClassifierBatch | None":
        """Return a batch; None before the first frames, or at different ones."""
        if not ChannelHistories.are_alike([stage._history for stage in stages]):
            return None
        return cls(stages)

    def compute(self, item: ChannelFrames, /) -> None:
        """Compute the log-posteriors of frames of all channels.

        Raises
        ------
        ValueError
            Frames are missing.
        """
        self._first = item.first
        if item.first != self._histories.stop:
            raise ValueError(
                f"frames begin at {item.first}, expected {self._histories.stop}"
            )
        (logits,) = self._network.compute({"frames": finite(item.values)})
        self._found = log_softmax(np.ascontiguousarray(finite(logits)))
        self._posteriors = None

    def commit(self) -> None:
        """Let state and history be those after the last frames."""
        self._network.commit()
        self._histories.append(self._found)

    def rows(self, channel: int, /) -> Posteriors:
        """Return the posteriors of one channel."""
        if self._posteriors is None:
            self._posteriors = np.exp(self._found).astype(np.float32)
        values = self._posteriors[channel]
        return Posteriors(self._first, self._hop, self._length, values)

    def active(self) -> Iterable[int]:
        """Return the channels in which a label may be new, or change."""
        return self._segments.active()

    def answers(self, channel: int, /) -> list[Event]:
        """Return the labels and forecasts of one channel."""
        events = self._stages[channel].label_segments()
        self._segments.look_at(channel)
        return events

    def release(self) -> None:
        """Give each classifier its state and history."""
        states = self._network.states()
        for network, state in zip(self._networks, states, strict=True):
            network._state = state
        self._histories.divide()
        for stage, history in zip(self._stages, self._own, strict=True):
            stage._history = history

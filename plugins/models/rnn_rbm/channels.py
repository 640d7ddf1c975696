"""RNN-RBMs of several channels that process together: one call of the network."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neurovocal.engine import Event, Float32
from neurovocal.engine.contracts.batches import ChannelFrames
from neurovocal.plugins.models.onnx.channel_network import ChannelNetwork
from neurovocal.plugins.models.onnx.session import finite

if TYPE_CHECKING:
    from neurovocal.plugins.models.rnn_rbm.model import RnnRbm


class RnnRbmBatch:
    """RNN-RBMs of several channels (a `StageBatch`).

    The network over the frames runs once for all channels; surprise and synthesis are
    each model's own, as is its state.

    Parameters
    ----------
    stages : sequence of RnnRbm
        With the same bundle, at the same frame.
    """

    rows_type: type[Event] | None = None

    def __init__(self, stages: "Sequence[RnnRbm]") -> None:
        self._stages = list(stages)
        states = [{"u": stage.state} for stage in stages]
        self._network = ChannelNetwork(stages[0].graph, states)
        self._frames: ChannelFrames | None = None
        self._values = np.empty((0, 0, 0), np.float32)
        self._outputs: list[Float32] = []
        self._active: range = range(0)

    @classmethod
    def of(cls, stages: "Sequence[RnnRbm]") -> "RnnRbmBatch | None":
        """Return a batch; None at different frames."""
        expected = stages[0].expected
        if any(stage.expected != expected for stage in stages):
            return None
        return cls(stages)

    def compute(self, item: ChannelFrames, /) -> None:
        """Compute the outputs of the network for frames of all channels.

        Raises
        ------
        ValueError
            Frames are missing.
        """
        expected = self._stages[0].expected
        if expected is not None and item.first != expected:
            raise ValueError(f"frames begin at {item.first}, expected {expected}")
        states = np.stack([stage.state for stage in self._stages])
        self._frames, self._values = item, finite(item.values)
        self._outputs = self._network.run({"frames": self._values, "u": states})

    def commit(self) -> None:
        """Change nothing: each model takes its outputs in `answers`."""
        self._active = range(len(self._stages))

    def rows(self, channel: int, /) -> Event:
        """Raise: all events of a model come from `answers`."""
        raise NotImplementedError

    def active(self) -> Iterable[int]:
        """Return all channels: each frame has its surprise."""
        active, self._active = self._active, range(0)
        return active

    def answers(self, channel: int, /) -> list[Event]:
        """Return surprise and synthesis of one channel."""
        assert self._frames is not None
        return self._stages[channel].take_outputs(
            self._frames.of(channel),
            self._values[channel],
            [np.ascontiguousarray(output[channel]) for output in self._outputs],
        )

    def release(self) -> None:
        """Do nothing: each model has its state."""

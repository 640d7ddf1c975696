"""Batches: stages of the channels of one source that process together.

A stage with the method `batch` has the ability (`Batches`). Its lane then calls the
batch once for all channels instead of each stage by itself. What comes out is the same,
byte for byte.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from neurovocal.engine.contracts.types import Event, Float32, Frames


@dataclass(frozen=True, slots=True, eq=False)
class ChannelFrames:
    """Frames of the same numbers in several channels.

    Parameters
    ----------
    first : int
        Number of the first frame.
    hop_length, frame_length : int
        In samples.
    values : float32[n_channels, n_frames, n_bins]
        The frames of each channel.
    """

    first: int
    hop_length: int
    frame_length: int
    values: Float32

    def of(self, channel: int) -> Frames:
        """Return the frames of one channel."""
        values = self.values[channel]
        return Frames(self.first, self.hop_length, self.frame_length, values)


class StageBatch(Protocol):
    """Stages of several channels, in the same state, that process together.

    Between its creation and `release` only the batch changes the stages. Channels are
    numbered by their place in the batch, from 0.

    Attributes
    ----------
    rows_type : type of Event or None
        Type of the event with rows (such as frames or posteriors) that every channel
        has after each call; None: there is none.
    """

    rows_type: type[Event] | None

    def compute(self, item: Any, /) -> ChannelFrames | None:
        """Compute what follows from an item of all channels; change no state.

        Parameters
        ----------
        item : Block or ChannelFrames
            Samples float32[n_samples, n_channels] for a front end or a detector,
            frames for a model.

        Returns
        -------
        ChannelFrames or None
            Frames that a front end has completed.

        Raises
        ------
        Exception
            Any: the stages then process the item one by one.
        """
        ...

    def commit(self) -> None:
        """Let the state be that after the item that was last computed; cannot fail."""
        ...

    def rows(self, channel: int, /) -> Event:
        """Return the event of `rows_type` of one channel, after `commit`."""
        ...

    def active(self) -> Iterable[int]:
        """Return the channels that may have further events, after `commit`."""
        ...

    def answers(self, channel: int, /) -> Iterable[Event]:
        """Return the further events of an active channel; called at most once.

        It may fail as `process` of the stage may, and may be called after `release`.
        """
        ...

    def release(self) -> None:
        """Give each stage its state, as if it had processed all items by itself.

        The batch computes nothing afterwards.
        """
        ...


@runtime_checkable
class Batches(Protocol):
    """Stage that can process together with those of other channels."""

    def batch(self, stages: Sequence[Any], /) -> StageBatch | None:
        """Return a batch of `stages`, which are of this type and have its options.

        Parameters
        ----------
        stages : sequence
            One stage for each channel, this one first.

        Returns
        -------
        StageBatch or None
            None if the stages are not in the same state, as before their first item:
            they process the next item one by one, and are asked again.
        """
        ...

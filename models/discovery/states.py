"""Features of segments by a bundle's RNN-RBM: its recurrent state, averaged."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.audio.non_finite import finite_items
from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.stages import Features
from neurovocal.engine.contracts.types import Block, Float32, Frames, Gap
from neurovocal.engine.lane.offline import build_front_end
from neurovocal.models.discovery.segments import Segments, SourceRecording
from neurovocal.plugins.models.onnx.session import finite
from neurovocal.plugins.models.rnn_rbm.graphs import scoring_graph
from neurovocal.plugins.sources.audio_files.file import Recording, inspect

_BLOCK_LENGTH = 2**16


class StateAverager:
    """Averages the state of a bundle's RNN-RBM over segments.

    Parameters
    ----------
    bundle : Bundle
        Bundle with an RNN-RBM.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.rnn_rbm
        assert spec is not None
        self._front_end = bundle.manifest.front_end
        self._features: Features = build_front_end(self._front_end, bundle)
        self._graph = scoring_graph(bundle, spec)
        self._rest = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)
        self.n_features = spec.n_layers * spec.n_recurrent

    def write(
        self,
        out: Float32,
        recordings: Sequence[SourceRecording],
        segments: Segments,
        number: int,
    ) -> None:
        """Compute the features of one recording's segments.

        Parameters
        ----------
        out : float32[n_segments, n_features]
            Receives the features, at the places of the segments.
        recordings : sequence of SourceRecording
            All recordings.
        segments : Segments
            All segments.
        number : int
            Index of the recording.

        Raises
        ------
        AudioFileError
            The recording cannot be read any more.
        """
        own = np.flatnonzero(segments.recording == number)
        recording = recordings[number]
        scale = self._front_end.sample_rate / recording.sample_rate
        for channel in np.unique(segments.channel[own]):
            rows = own[segments.channel[own] == channel]
            first, stop = self._frame_spans(segments, rows, scale)
            sums = np.zeros((len(rows), self.n_features))
            for at, states in self._states(Path(recording.path), int(channel)):
                self._add(sums, at, states, first, stop)
            out[rows] = sums / np.maximum(stop - first, 1)[:, None]

    def _frame_spans(
        self, segments: Segments, rows: NDArray[np.int64], scale: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the frames whose middle lies in a segment, at least one."""
        hop, length = self._front_end.hop_length, self._front_end.frame_length
        first = np.ceil((segments.onset[rows] * scale - length / 2) / hop)
        stop = np.ceil((segments.offset[rows] * scale - length / 2) / hop)
        first = np.maximum(first, 0).astype(np.int64)
        return first, np.maximum(stop.astype(np.int64), first + 1)

    @staticmethod
    def _add(
        sums: NDArray[np.float64],
        at: int,
        states: Float32,
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> None:
        """Add the states of frames ``at, ...`` to the segments that have them."""
        end = at + len(states)
        total = np.concatenate([np.zeros((1, states.shape[1])), states.cumsum(0)])
        for k in np.flatnonzero((first < end) & (stop > at)):
            low, high = max(int(first[k]), at) - at, min(int(stop[k]), end) - at
            sums[k] += total[high] - total[low]

    def _states(self, path: Path, channel: int) -> Iterator[tuple[int, Float32]]:
        """Yield the index of a first frame, and the states of frames from it on."""
        header = inspect(path)
        resampler = None
        if header.sample_rate != self._front_end.sample_rate:
            resampler = Resampler(header.sample_rate, self._front_end.sample_rate)
        self._features.reset()
        state, position = self._rest, 0
        with closing(Recording(header)) as recording:
            recording.open()
            while len(block := recording.read(_BLOCK_LENGTH)):
                samples = np.ascontiguousarray(block[:, channel - 1 : channel])
                for item in finite_items(position, samples):
                    parts = [item] if resampler is None else resampler.process(item)
                    for part in parts:
                        if isinstance(part, Gap):
                            state = self._rest
                        if not isinstance(part, Block | Gap):
                            continue
                        for frames in self._features.process(part):
                            if isinstance(frames, Frames):
                                states, state = self._run(frames.values, state)
                                at = frames.first // self._front_end.hop_length
                                yield at, states
                position += len(block)

    def _run(self, values: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Return the state after each frame, flattened, and the last one."""
        _, _, states, after = self._graph.run({"frames": finite(values), "u": state})
        flat = finite(states).reshape(len(states), -1)
        return flat, after if np.isfinite(after).all() else self._rest

"""Detector network of a bundle, run on the levels of bands above their floors."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from neurovocal.engine import (
    Block,
    Bundle,
    BundleError,
    Float32,
    Gap,
    Mark,
    Posteriors,
    Segmenter,
    SegmenterRules,
    Trace,
    TraceKeeper,
)
from neurovocal.plugins.detectors.band_excess import (
    N_BANDS,
    BandExcess,
)
from neurovocal.plugins.models.onnx.session import Golden, Graph, finite


class ExcessNetwork:
    """Runs ``detector.onnx`` in tiles of the hop grid, and keeps its state.

    Parameters
    ----------
    bundle : Bundle
        Bundle with a detector network.
    tile : int
        Rows per call of the network. Results depend on it in their last bits, and
        never on how rows are divided into calls of `push`.

    Raises
    ------
    BundleError
        There is no network, it does not fit, or it does not reproduce its golden
        vectors.
    """

    def __init__(self, bundle: Bundle, tile: int) -> None:
        spec = bundle.manifest.detector_network
        if spec is None:
            raise BundleError(
                f"bundle '{bundle.manifest.name}' has no detector network: name "
                "another one, or train one with `neurovocal train --detector`"
            )
        if spec.n_bands != N_BANDS:
            raise BundleError(
                f"bundle '{bundle.folder}': the detector network has {spec.n_bands} "
                f"bands, this neurovocal makes {N_BANDS}: train it again"
            )
        self.look_ahead = spec.look_ahead
        self._tile = tile
        self._zeros = {
            name: np.zeros(shape, np.float32) for name, shape in spec.state.items()
        }
        states = {name: tuple(shape) for name, shape in spec.state.items()}
        self._graph = Graph(
            bundle,
            spec.file,
            {"excess": (None, spec.n_bands), **states},
            {
                "scores": (None,),
                **{f"{name}_next": shape for name, shape in states.items()},
            },
        )
        golden = Golden(bundle, "excess")
        scores = self._graph.try_run({"excess": golden.frames, **self._zeros})[0]
        golden.check(self._graph, "scores", scores)
        self.reset()

    def reset(self) -> None:
        """Forget all rows; the next ones may begin anywhere."""
        self._state = self._zeros
        self._held = np.empty((0, N_BANDS), np.float32)  # rows of an unfinished tile
        self._last = self._held  # the row received last
        self._next = 0  # index of the first row that the network has not had
        self._to_skip = self.look_ahead  # scores that belong to rows before the first

    def push(self, first: int, rows: Float32) -> tuple[int, Float32]:
        """Return the scores that rows complete.

        Parameters
        ----------
        first : int
            Index of the first row; calls follow each other without holes.
        rows : float32[n_rows, n_bands]
            Excess in dB.

        Returns
        -------
        first : int
            Index of the row that the first score belongs to.
        scores : float32[n_scores]
            From 0 to 1.
        """
        if len(rows) == 0:
            return first, np.empty(0, np.float32)
        if len(self._last) == 0:
            self._next = first
        self._last = rows[-1:]
        known = np.concatenate((self._held, rows)) if len(self._held) else rows
        parts, done, at = [], 0, self._next
        while len(known) - done >= (size := self._tile - at % self._tile):
            parts.append(self._run(known[done : done + size]))
            done, at = done + size, at + size
        self._held = known[done:]
        return self._scored(parts)

    def flush(self) -> tuple[int, Float32]:
        """Return the last scores, as if the last row were repeated; then reset."""
        rest = np.repeat(self._last, self.look_ahead, axis=0)
        parts = [self._run(rows) for rows in (self._held, rest) if len(rows)]
        scored = self._scored(parts)
        self.reset()
        return scored

    def _run(self, rows: Float32) -> Float32:
        """Return the network's outputs for rows that follow the ones before."""
        scores, *states = self._graph.run({"excess": finite(rows), **self._state})
        self._state = {
            name: finite(state) for name, state in zip(self._zeros, states, strict=True)
        }
        return finite(scores)

    def _scored(self, parts: list[Float32]) -> tuple[int, Float32]:
        """Return outputs as the scores of the rows that they belong to."""
        scores = np.concatenate([np.empty(0, np.float32), *parts])
        self._next += len(scores)
        skipped = min(self._to_skip, len(scores))
        self._to_skip -= skipped
        scores = scores[skipped:]
        return self._next - self.look_ahead - len(scores), scores


class ExcessNetworkDetector:
    """Detector of segments in the scores of a bundle's detector network.

    The network gets the level of each band above its running noise floor
    (`BandExcess`): neither the gain of the microphone nor the sample rate changes what
    it hears. The score of a row stands for the `hop_length` samples around its frame's
    centre.

    Parameters
    ----------
    network : ExcessNetwork
        The network.
    excess : BandExcess
        Noise floors of the stream.
    rules : SegmenterRules
        Thresholds and durations.
    tile : int
        Rows per call of the network.
    """

    consumes: Literal["samples", "posteriors"] = "samples"

    def __init__(
        self,
        network: ExcessNetwork,
        excess: BandExcess,
        rules: SegmenterRules,
        tile: int,
    ) -> None:
        hop = excess.hop_length
        self._excess = excess
        self._network = network
        self._segmenter = Segmenter(rules, hop, (excess.frame_length - hop) // 2)
        self._trace = TraceKeeper(hop, excess.frame_length, "P(vocalization)")
        self._thresholds = rules.on, rules.off
        waited = tile + network.look_ahead + 1
        self.latency = excess.latency + waited * hop + rules.latency
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._segmenter.reset()
        self._trace.reset()
        self._excess.reset()
        self._network.reset()
        self._has_audio = False  # since the start or the last gap
        self._stop = 0  # sample after the last one received

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks that `item` completes; a gap truncates an open segment."""
        if isinstance(item, Gap):
            rows = self._excess.gap(item)
            return self._finish(*rows)
        assert isinstance(item, Block)
        if not self._has_audio and len(item.samples):
            self._segmenter.begin(item.start)
            self._has_audio = True
        self._stop = item.start + len(item.samples)
        return self._marks(*self._network.push(*self._excess.push(item)))

    def flush(self) -> Iterable[Mark]:
        """Return the last marks at the end of the stream, truncating a segment."""
        return self._finish(*self._excess.flush())

    def trace(self) -> Iterable[Trace]:
        """Return score and thresholds of the rows since the last call."""
        return self._trace.take()

    def _finish(self, first: int, rows: Float32) -> list[Mark]:
        """Score the rows that were held back and close the open segment."""
        if not self._has_audio:
            return []
        marks = self._marks(*self._network.push(first, rows))
        marks += self._marks(*self._network.flush())
        marks += self._segmenter.close(self._stop)
        self._has_audio = False
        return marks

    def _marks(self, first: int, scores: Float32) -> list[Mark]:
        if len(scores) == 0:
            return []
        values = scores.astype(np.float64)
        self._trace.add(first, values, *self._thresholds)
        return self._segmenter.process(first, values)

"""Recordings as the engine heard and labelled them, and scores of their segments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.contracts.types import Float32, Label
from neurovocal.engine.lane.offline import build_front_end, frames_of, resampled
from neurovocal.models.data.sound_files import opened
from neurovocal.models.evaluation.labelling import Labeller
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.plugins.models.classifier.decision import LabelDecision
from neurovocal.plugins.models.history import Float64, log_softmax

# Frames before a segment that may decide its label, too: the network remembers.
LEAD_S = 0.06
_AROUND_S = 0.05  # drawn and heard before and after a segment
_LEAST_BACKGROUND = 20  # frames


@dataclass(frozen=True, slots=True, eq=False)
class HeardRecording:
    """A recording at the bundle's rate, with frames and the engine's final labels.

    Parameters
    ----------
    name : str
        As the user gave it.
    samples : float32[n_samples]
    frames : float32[n_frames, n_bins]
    labels : list of Label
    background : float32[n_bins]
        Median of the frames outside of all segments: what a silenced stretch becomes.
    """

    name: str
    samples: Float32
    frames: Float32
    labels: list[Label]
    background: Float32


@dataclass(frozen=True, slots=True, eq=False)
class HeardSegment:
    """A labelled segment with all that its label follows from.

    Parameters
    ----------
    recording : HeardRecording
    label : Label
    first, stop : int
        Frames of the recording whose centres lie in the segment.
    start : int
        First frame that is silenced for trial; `first` less the lead.
    state : dict of str to float32
        State of the network before frame `start`.
    scores : float64[n_units]
        Summed log-posteriors of the segment as it is.
    """

    recording: HeardRecording
    label: Label
    first: int
    stop: int
    start: int
    state: dict[str, Float32]
    scores: Float64

    @property
    def frames(self) -> Float32:
        """Frames from `start` to `stop`, float32[n, n_bins]."""
        return self.recording.frames[self.start : self.stop]

    @property
    def n_lead(self) -> int:
        """Frames before the segment's own ones."""
        return self.first - self.start


class Listener:
    """Hears recordings with a bundle, as the engine does, and scores segments.

    Parameters
    ----------
    bundle : Bundle
        Must have a classifier.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.classifier
        if spec is None:
            raise ConfigError(
                f"bundle '{bundle.manifest.name}' has no classifier: it gives no "
                "labels that could be explained"
            )
        self.bundle, self.spec = bundle, spec
        front_end = bundle.manifest.front_end
        self.rate, self.hop = front_end.sample_rate, front_end.hop_length
        self._length = front_end.frame_length
        self._session = Session(bundle.path(spec.file))
        self._decision = LabelDecision(spec)
        self._features = build_front_end(front_end, bundle)
        self._labeller = Labeller(bundle)

    def hear(self, path: Path, name: str, channel: int) -> HeardRecording:
        """Read and label a recording.

        Raises
        ------
        ConfigError
            It cannot be read, or lacks the channel.
        """
        samples = self._read(path, name, channel)
        frames = frames_of(self._features, samples)
        labels = self._labeller(samples).labels
        return HeardRecording(
            name, samples, frames, labels, self._background(frames, labels)
        )

    def segments(
        self, recording: HeardRecording, wanted: Sequence[Label]
    ) -> Iterator[HeardSegment]:
        """Yield segments with the network's state before them, in time order."""
        state = {n: np.zeros(s, np.float32) for n, s in self.spec.state.items()}
        at, lead = 0, max(1, round(LEAD_S * self.rate / self.hop))
        for label in sorted(wanted, key=lambda each: each.onset):
            assert label.offset is not None
            first = self.frame_centred_from(label.onset)
            stop = min(self.frame_centred_from(label.offset), len(recording.frames))
            if stop <= first:
                continue  # no frame's centre lies in it
            start = max(at, first - lead)
            _, state = self._run(recording.frames[at:start], state)
            at = start
            scores = self.scores(recording.frames[start:stop], state, first - start)
            yield HeardSegment(recording, label, first, stop, start, state, scores)

    def scores(
        self, frames: Float32, state: dict[str, Float32], n_lead: int
    ) -> Float64:
        """Return the summed log-posteriors that decide, float64[n_units].

        Parameters
        ----------
        frames : float32[n_lead + n_frames, n_bins]
            Lead and frames of the segment.
        state : dict of str to float32
            State before them.
        n_lead : int
            Frames before the segment's own.
        """
        logs, _ = self._run(frames, state)
        is_last = self.spec.decision == "last"
        deciding: Float64 = logs[-1] if is_last else logs[n_lead:].sum(axis=0)
        return deciding

    def margin(self, scores: Float64, unit: str, other: str) -> float:
        """Return the calibrated log-odds of a unit against another one, in nats."""
        units = self.spec.units
        difference = scores[units.index(unit)] - scores[units.index(other)]
        return float(difference / self.spec.temperature)

    def decide(self, scores: Float64, n_frames: int) -> tuple[str, float]:
        """Return the label and posterior that the engine gives for such scores."""
        return self._decision(scores.copy(), n_frames=n_frames)

    def ranking(self, scores: Float64) -> list[str]:
        """Return the units without silence, the most probable first."""
        order = np.argsort(-scores, kind="stable")
        names = [self.spec.units[place] for place in order]
        return [name for name in names if name != self.spec.silence]

    def sound(self, segment: HeardSegment) -> Float32:
        """Return a segment's sound with a little of what is around it."""
        label, around = segment.label, round(_AROUND_S * self.rate)
        assert label.offset is not None
        start = max(0, label.onset - around)
        return segment.recording.samples[start : label.offset + around]

    def frame_centred_from(self, sample: int) -> int:
        """Return the first frame centred at or after a sample, as the engine does."""
        return max(0, -((self._length - 2 * sample) // (2 * self.hop)))

    def _run(
        self, frames: Float32, state: dict[str, Float32]
    ) -> tuple[Float64, dict[str, Float32]]:
        """Return the log-posteriors of frames, and the state after them."""
        if not len(frames):
            return np.zeros((0, len(self.spec.units))), state
        found = self._session.run(frames=frames, **state)
        after = {name: found[f"{name}_next"] for name in state}
        return log_softmax(found["logits"]), after

    def _read(self, path: Path, name: str, channel: int) -> Float32:
        parts = []
        try:
            with opened(path) as file:
                header = file.header
                if channel > header.channels:
                    raise ConfigError(
                        f"'{name}' has {header.channels} channels, no channel {channel}"
                    )
                while len(part := file.read(header.sample_rate)):
                    parts.append(part[:, channel - 1].copy())
        except AudioFileError as error:
            raise ConfigError(f"'{name}' {error}") from error
        if not parts:
            raise ConfigError(f"'{name}' holds no samples")
        clean = np.nan_to_num(np.concatenate(parts), posinf=0.0, neginf=0.0)
        return resampled(clean, header.sample_rate, self.rate)

    def _background(self, frames: Float32, labels: Sequence[Label]) -> Float32:
        """Return the median of frames outside segments, or of the quietest ones."""
        is_outside = np.ones(len(frames), bool)
        for label in labels:
            assert label.offset is not None
            first = self.frame_centred_from(label.onset)
            is_outside[first : self.frame_centred_from(label.offset)] = False
        if is_outside.sum() < _LEAST_BACKGROUND:
            level = frames.mean(axis=1)
            is_outside = level <= np.quantile(level, 0.1) if len(level) else is_outside
        outside = frames[is_outside]
        if not len(outside):
            return np.zeros(frames.shape[1], np.float32)
        return np.median(outside, axis=0).astype(np.float32)

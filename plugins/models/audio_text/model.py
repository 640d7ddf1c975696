"""Model `audio_text`: names for segments that no classifier knows, out of a list.

It follows the other models of its lane: a segment whose final label is `unknown`, or
whose mean surprise is high, is heard once by the audio's encoder, and the name whose
text lies nearest is suggested.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Event,
    FileAccess,
    Float32,
    Gap,
    Label,
    Offset,
    Onset,
    Options,
    Plugin,
    Resampler,
    SampleModelItem,
    StepEvents,
    Surprise,
)
from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.contracts.types import Suggestion, SuggestionReason
from neurovocal.plugins.models.audio_text.encoders import (
    EncodesAudio,
    EncodesText,
    Names,
    check_pair,
)
from neurovocal.plugins.models.audio_text.manifest import (
    MOST_NAMES,
    LoadedPair,
    Name,
    load_pair,
    name_problems,
)

_UNKNOWN = "unknown"  # label of `onnx`, and of most bundles
# Sound and segments are kept so long in addition to a window, for labels and surprise
# that come late.
_MARGIN_S = 10.0


class AudioTextOptions(Options):
    """Options of the ``audio_text`` model."""

    manifest: str
    """YAML file that describes the two encoders (docs/connect/text.md)."""
    name: str | None = Field(
        default=None, min_length=1, max_length=64, pattern=r"^[\w.-]+$"
    )
    """Name of the model in suggestions; default: the manifest's."""
    names: list[Name] = Field(default=[], max_length=MOST_NAMES)
    """Names that can be given; default: the manifest's."""
    which: Literal["unknown", "surprising", "both", "every"] = "both"
    """Segments that are named: those labelled `unknown`, or what the bundle calls so;
    those of high surprise; both; every one."""
    surprise: float = Field(default=3.0, ge=-1e6, le=1e6)
    """Mean surprise (of `rnn_rbm`) from which a segment is surprising."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Probability below which nothing is suggested; default: the manifest's."""
    top_k: int = Field(default=3, ge=1, le=100)
    """Most names in a suggestion."""
    spacing_s: float = Field(default=1.0, ge=0, le=3600)
    """Least time between the onsets of two segments that are heard: an encoder of
    seconds of sound is slow."""


@dataclass(slots=True)
class _Segment:
    """A segment that may be named; positions at the lane's rate."""

    segment: int
    onset: int
    offset: int | None = None
    reason: SuggestionReason | None = None
    is_judged: bool = False  # its surprise is known


class RecentSound:
    """Keeps the last samples of a run of audio.

    Parameters
    ----------
    n_kept : int
        Samples that are kept at least.

    Attributes
    ----------
    stop : int
        Stream index after the last sample.
    """

    def __init__(self, n_kept: int) -> None:
        self._n_kept = n_kept
        self._held = np.zeros(2 * n_kept, np.float32)
        self.clear()

    def clear(self) -> None:
        """Drop all samples; the next ones may begin anywhere."""
        self._n, self.stop, self._is_empty = 0, 0, True

    def append(self, start: int, samples: Float32) -> None:
        """Add samples, the first at stream index `start`."""
        if self._is_empty:
            self.stop, self._is_empty = start, False
        self.stop += len(samples)
        samples = samples[-self._n_kept :]
        if self._n + len(samples) > len(self._held):
            rest = self._held[self._n - self._n_kept : self._n].copy()
            self._held[: len(rest)], self._n = rest, len(rest)
        self._held[self._n : self._n + len(samples)] = samples
        self._n += len(samples)

    def last(self) -> tuple[int, Float32]:
        """Return the stream index of the first sample kept, and the samples."""
        n = min(self._n, self._n_kept)
        return self.stop - n, self._held[self._n - n : self._n]


class AudioTextModel:
    """Suggests names for segments by the texts that are nearest to their sound.

    Parameters
    ----------
    options : AudioTextOptions
        Checked options.
    loaded : LoadedPair
        Manifest of the encoders.
    context : BuildContext
        Context with the stream; its bundle says which label means `unknown`.

    Attributes
    ----------
    latency : int
        Samples after an offset that are heard before a segment is named.

    Raises
    ------
    ConfigError
        Graphs and manifest do not agree.
    """

    consumes: Literal["samples"] = "samples"

    def __init__(
        self, options: AudioTextOptions, loaded: LoadedPair, context: BuildContext
    ) -> None:
        if context.info is None:
            raise ConfigError("model 'audio_text' needs to know its stream's rate")
        manifest = loaded.manifest
        self._options = options
        self._audio = EncodesAudio(loaded)
        self._names = _names(options, loaded, self._audio)
        self._name = options.name or manifest.name
        spec = context.bundle.manifest.classifier if context.bundle else None
        self._unknown = {_UNKNOWN, spec.unknown if spec is not None else _UNKNOWN}
        self._threshold = (
            manifest.threshold if options.threshold is None else options.threshold
        )
        self._rate, self._own_rate = context.info.sample_rate, self._audio.sample_rate
        self._resampler = Resampler(self._rate, self._own_rate)
        window = self._audio.window
        self._after = (window + 1) // 2 if manifest.audio.fill == "around" else 0
        held_back = self._resampler.latency + self._after
        self.latency = -(-held_back * self._rate // self._own_rate)
        self._margin = round(_MARGIN_S * self._rate) + self.latency
        margin = round(_MARGIN_S * self._own_rate)
        # The middle of a longer segment is further back than its sound is kept.
        self._reach = 2 * window + margin
        self._sound = RecentSound(self._reach + window + margin)
        self._spacing = round(options.spacing_s * self._rate)
        self.reset()

    def process(self, item: SampleModelItem, /) -> Iterable[Event]:
        """Keep sound and segments; what is suggested comes from `follow`."""
        match item:
            case Block():
                self._append(self._resampler.process(item))
            case Onset():
                self._segments[item.segment] = self._new(item.segment, item.sample)
            case Offset():
                self._of(item.segment, item.onset).offset = item.sample
            case Gap():
                self.flush()
        return []

    def flush(self) -> list[Event]:
        """End the run of audio: the next call of `follow` names what still waits."""
        self._append(self._resampler.flush())
        self._has_ended = True
        return []

    def reset(self) -> None:
        """Drop sound, surprise and segments."""
        self._resampler.reset()
        self._sound.clear()
        self._segments: dict[int, _Segment] = {}
        self._surprise: deque[Surprise] = deque()
        self._last_heard: int | None = None  # onset of the last segment heard
        self._has_ended = False

    def follow(self, step: StepEvents, /) -> list[Event]:
        """Return suggestions for the segments whose sound and reason are known."""
        for event in step.events:
            if isinstance(event, Label) and event.model != self._name:
                self._on_label(event)
            elif isinstance(event, Surprise):
                self._surprise.append(event)
        if not self._segments and not self._has_ended:
            self._forget(step.at)
            return []
        self._judge_surprise()
        suggestions: list[Event] = []
        for segment in [s for s in self._segments.values() if self._is_ready(s)]:
            del self._segments[segment.segment]
            suggestions += self._suggest(segment)
        if self._has_ended:
            self.reset()
        else:
            self._forget(step.at)
        return suggestions

    # ---- why a segment is named ------------------------------------------------------

    def _new(self, number: int, onset: int) -> _Segment:
        segment = _Segment(number, onset)
        if self._options.which == "every":
            segment.reason = "every"
        return segment

    def _of(self, number: int, onset: int) -> _Segment:
        if number not in self._segments:
            self._segments[number] = self._new(number, onset)
        return self._segments[number]

    def _on_label(self, label: Label) -> None:
        if label.status != "final" or label.unit not in self._unknown:
            return
        segment = self._segments.get(label.segment)
        if segment is not None and self._options.which in ("unknown", "both"):
            segment.reason = segment.reason or "unknown"

    def _judge_surprise(self) -> None:
        """Find the surprising ones among the segments whose surprise is known."""
        if self._options.which not in ("surprising", "both") or not self._surprise:
            return
        last = self._surprise[-1]
        stop = (last.first + len(last.values)) * last.hop_length
        for segment in self._segments.values():
            if segment.is_judged or segment.offset is None:
                continue
            if segment.offset > stop and not self._has_ended:
                continue
            segment.is_judged = True
            mean = self._mean_surprise(segment.onset, segment.offset)
            if mean is not None and mean >= self._options.surprise:
                segment.reason = segment.reason or "surprising"

    def _mean_surprise(self, onset: int, offset: int) -> float | None:
        """Return the mean over the frames that begin in ``[onset, offset)``."""
        parts = []
        for event in self._surprise:
            starts = (event.first + np.arange(len(event.values))) * event.hop_length
            parts.append(event.values[(starts >= onset) & (starts < offset)])
        values = np.concatenate([np.zeros(0, np.float32), *parts])
        values = values[np.isfinite(values)]
        return float(values.mean(dtype=np.float64)) if len(values) else None

    def _forget(self, at: int) -> None:
        """Drop what is older than a late label or late surprise can be."""
        oldest = at - self._margin
        late = [
            number
            for number, segment in self._segments.items()
            if segment.offset is not None and segment.offset < oldest
        ]
        for number in late:
            del self._segments[number]
        while self._surprise:
            first = self._surprise[0]
            if (first.first + len(first.values)) * first.hop_length > oldest:
                break
            self._surprise.popleft()

    # ---- what it is named ------------------------------------------------------------

    def _append(self, parts: Iterable[object]) -> None:
        for part in parts:
            if isinstance(part, Block):
                self._sound.append(part.start, part.samples[:, 0])

    def _is_ready(self, segment: _Segment) -> bool:
        if segment.reason is None or segment.offset is None:
            return False
        onset, offset = self._own(segment.onset), self._own(segment.offset)
        needed = max(offset, (onset + offset) // 2 + self._after)
        return self._has_ended or self._sound.stop >= needed

    def _own(self, sample: int) -> int:
        return scaled(sample, self._rate, self._own_rate)

    def _suggest(self, segment: _Segment) -> Iterator[Event]:
        """Yield the suggestion for a segment, unless no name is likely enough."""
        assert segment.offset is not None
        assert segment.reason is not None
        last = self._last_heard
        if last is not None and segment.onset - last < self._spacing:
            return
        onset, offset = self._own(segment.onset), self._own(segment.offset)
        if (offset - onset + self._audio.window) // 2 > self._reach:
            return
        self._last_heard = segment.onset
        first, samples = self._sound.last()
        vector = self._audio(samples, onset - first, offset - first)
        shares = self._names.posteriors(vector)
        best = sorted(range(len(shares)), key=lambda k: (-shares[k], k))
        named = {
            self._names.names[k]: round(float(shares[k]), 6)
            for k in best[: self._options.top_k]
        }
        name, posterior = next(iter(named.items()))
        if posterior >= self._threshold:
            yield Suggestion(
                segment.segment,
                segment.onset,
                segment.offset,
                name,
                posterior,
                named,
                segment.reason,
                self._name,
            )


def _names(options: AudioTextOptions, loaded: LoadedPair, audio: EncodesAudio) -> Names:
    encode = EncodesText(loaded)
    check_pair(audio, encode, loaded)
    return Names(loaded, encode, _given(options, loaded))


def _given(options: AudioTextOptions, loaded: LoadedPair) -> Sequence[str]:
    return options.names or loaded.manifest.names


def _check(options: AudioTextOptions, context: BuildContext) -> Iterable[str]:
    try:
        loaded = load_pair(context.path(options.manifest))
        if not _given(options, loaded):
            yield OptionProblem(
                "names", "no name can be given: list some here or in the manifest"
            )
            return
        wrong = name_problems(options.names, options.names)
        if wrong:
            number, problem = wrong[0]
            yield OptionProblem("names", f"number {number + 1} {problem}")
            return
        _names(options, loaded, EncodesAudio(loaded))
    except ConfigError as error:
        yield from error.problems


def _build(options: AudioTextOptions, context: BuildContext) -> AudioTextModel:
    return AudioTextModel(options, load_pair(context.path(options.manifest)), context)


def _reads(options: AudioTextOptions, context: BuildContext) -> Iterable[FileAccess]:
    path = context.path(options.manifest)
    yield FileAccess(path)
    try:
        loaded = load_pair(path)
    except ConfigError:
        return
    for read in (loaded.audio.graph, loaded.text_graph, loaded.tokenizer):
        yield FileAccess(read)


plugin = Plugin(
    kind="model",
    options=AudioTextOptions,
    build=_build,
    summary="names for unknown and surprising segments, by encoders of audio and text",
    check=_check,
    reads=_reads,
)

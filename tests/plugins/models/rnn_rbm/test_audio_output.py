"""Audio of the RNN-RBM's frames: pieces, their positions and ends."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.tiny_bundle import N_BINS, edit_manifest, make_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Audio,
    Event,
    Float32,
    Frames,
    Gap,
    Offset,
    StreamInfo,
    Synthesis,
)
from neurovocal.engine.testing import canonical
from neurovocal.plugins.features.inverse import InverseSpectrogram
from neurovocal.plugins.models.rnn_rbm.audio_output import AudioSynthesis
from neurovocal.plugins.models.rnn_rbm.model import plugin as rnn_rbm_plugin

HOP, LENGTH = 128, 256
LATENCY = 4 * HOP


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def context(folder: Path) -> BuildContext:
    return BuildContext(
        clock=ManualClock(),
        run="test",
        info=StreamInfo("test", 32_000),
        bundle=load_bundle(folder),
    )


def build(folder: Path, **options: Any) -> Any:
    validated = rnn_rbm_plugin.options.model_validate({"sound": True, **options})
    return rnn_rbm_plugin.build(validated, context(folder))


def inverse(folder: Path) -> InverseSpectrogram:
    return InverseSpectrogram(load_bundle(folder).manifest.front_end, folder)


def frames(n_frames: int, seed: int = 0) -> Float32:
    values = np.random.default_rng(seed).uniform(0, 0.3, (n_frames, N_BINS))
    values[10:30, 30:40] += 0.6
    return values.astype(np.float32)


def tiles(values: Float32, first: int = 0, tile: int = 8) -> list[Frames]:
    return [
        Frames(first + k, HOP, LENGTH, values[k : k + tile])
        for k in range(0, len(values), tile)
    ]


def process(model: Any, items: Iterable[Any]) -> list[Event]:
    return [event for item in items for event in model.process(item)]


def of(kind: type, events: Iterable[Event]) -> list[Any]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def audio_of(folder: Path, values: Float32) -> Float32:
    one = inverse(folder)
    return np.concatenate([one.process(values), one.flush()])


def test_audio_of_predictions_is_contiguous_and_on_the_sample_grid(
    folder: Path,
) -> None:
    model = build(folder, synthesis="predict")
    events = [*process(model, tiles(frames(50))), *model.flush()]
    drawn = np.concatenate([e.values for e in of(Synthesis, events)])
    sound = of(Audio, events)
    assert sound[0].start == HOP  # where the first predicted frame begins
    for one, other in pairwise(sound):
        assert other.start == one.stop
    assert [e.last for e in sound] == [False] * (len(sound) - 1) + [True]
    assert {(e.mode, e.model) for e in sound} == {("predict", "tiny/rnn_rbm")}
    samples = np.concatenate([e.samples for e in sound])[:, 0]
    assert samples.tobytes() == audio_of(folder, drawn).tobytes()
    # The audio is behind by no more than the look-ahead of the phases.
    assert sound[0].stop == HOP + 8 * HOP - LATENCY


def test_a_gap_ends_a_piece_and_the_next_frames_begin_another(folder: Path) -> None:
    model = build(folder, synthesis="predict")
    before = process(model, tiles(frames(24)))
    end = list(model.process(Gap(24 * HOP + LENGTH, 12_000, "overrun")))
    after = process(model, tiles(frames(24, seed=1), first=94))
    (last,) = of(Audio, end)
    assert last.last
    assert last.start == of(Audio, before)[-1].stop
    assert last.stop == 24 * HOP + LENGTH  # of the last frame, which is number 24
    again = of(Audio, after)
    assert again[0].start == 95 * HOP
    drawn = np.concatenate([e.values for e in of(Synthesis, after)])
    samples = np.concatenate([e.samples for e in [*again, *of(Audio, model.flush())]])
    assert samples[:, 0].tobytes() == audio_of(folder, drawn).tobytes()


def test_a_continuation_is_a_piece_that_fades_in_and_out(folder: Path) -> None:
    model = build(folder, synthesis="continue", continue_frames=10)
    marks = [Offset(0, 2000, 5500, False), Offset(1, 2000, 6500, False)]
    events = process(model, [*tiles(frames(60)), *marks])
    drawn, sound = of(Synthesis, events), of(Audio, events)
    assert [e.last for e in sound] == [False, True, False, True]
    for frames_, body, tail in zip(drawn, sound[::2], sound[1::2], strict=True):
        assert (body.start, tail.start) == (frames_.first * HOP, body.stop)
        samples = np.concatenate([body.samples, tail.samples])[:, 0]
        assert len(samples) == 9 * HOP + LENGTH
        assert samples.tobytes() == audio_of(folder, frames_.values).tobytes()
        loud = abs(samples).max()
        assert loud > 0
        assert abs(samples[[0, -1]]).max() < 0.01 * loud


def test_there_is_no_audio_without_the_option_sound(folder: Path) -> None:
    items = [*tiles(frames(60)), Offset(0, 2000, 5500, False)]
    for options in ({"synthesis": "off"}, {"synthesis": "predict", "sound": False}):
        model = build(folder, **options)
        assert of(Audio, [*process(model, items), *model.flush()]) == []


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 30), max_size=5))
def test_audio_does_not_depend_on_how_frames_are_cut(
    folder: Path, cuts: list[int]
) -> None:
    values = frames(30)
    whole = AudioSynthesis(inverse(folder))
    expected = [*whole.process(Synthesis(3, HOP, values, "free", "m")), *whole.flush()]
    synthesis = AudioSynthesis(inverse(folder))
    parts: list[Audio] = []
    first = 3
    for part in np.split(values, sorted(cuts)):
        if len(part):
            parts += synthesis.process(Synthesis(first, HOP, part, "free", "m"))
            first += len(part)
    parts += synthesis.flush()
    assert parts[0].start == expected[0].start
    assert (
        np.concatenate([e.samples for e in parts]).tobytes()
        == np.concatenate([e.samples for e in expected]).tobytes()
    )


def test_another_mode_or_position_begins_another_piece(folder: Path) -> None:
    synthesis = AudioSynthesis(inverse(folder))
    values = frames(8)
    parts = [(0, "predict"), (8, "predict"), (20, "predict"), (28, "free")]
    events = []
    for first, mode in parts:
        events += synthesis.process(Synthesis(first, HOP, values, mode, "m"))
    events += synthesis.flush()
    pieces = [
        (e.start, e.mode)
        for e, before in zip(events, [None, *events], strict=False)
        if before is None or before.last
    ]
    assert pieces == [(0, "predict"), (20 * HOP, "predict"), (28 * HOP, "free")]
    assert synthesis.flush() == []


def test_reset_drops_the_piece(folder: Path) -> None:
    model = build(folder, synthesis="predict")
    first = [canonical(e) for e in process(model, tiles(frames(24)))]
    model.reset()
    assert [canonical(e) for e in process(model, tiles(frames(24)))] == first


def test_sound_with_a_front_end_without_an_inverse_is_refused(folder: Path) -> None:
    other = make_tiny_bundle(folder.parent / "wide")
    manifest = load_bundle(other).manifest.front_end.model_dump()
    manifest["hop_length"] = manifest["options"]["hop_length"] = LENGTH
    edit_manifest(other, front_end=manifest)
    with pytest.raises(ConfigError, match="hop_length 256 leaves samples"):
        build(other, synthesis="predict")
    options = rnn_rbm_plugin.options(synthesis="predict", sound=True)
    problems = list(rnn_rbm_plugin.check(options, context(other)))
    assert any("hop_length 256 leaves samples" in problem for problem in problems)

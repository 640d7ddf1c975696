"""Modes of synthesis: sequences through gaps, stalls and changes of options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bundles.tiny_bundle import N_BINS, make_tiny_bundle
from bundles.tiny_rnn_rbm import (
    HOP,
    LENGTH,
    RATE,
    build,
    change,
    draw_frames,
    generated_frames,
    make_frames,
    process,
    scored,
    synthesis_of,
    tiles,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.types import (
    Audio,
    Frames,
    Gap,
    Offset,
    Surprise,
    Synthesis,
)
from neurovocal.engine.testing import canonical
from neurovocal.plugins.models.rnn_rbm.sequence import SilenceDetector

QUIET_SEED = (0,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


# ---- free --------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"feedback": "mean"}, {"feedback": "sampled"}])
def test_a_free_sequence_keeps_up_with_the_stream(folder: Path, how: Any) -> None:
    model = build(folder, synthesis="free", seed=3, **how)
    events = process(model, tiles(make_frames(50), first=7))
    parts = synthesis_of(events)
    assert parts[0].first == 7
    assert {(p.mode, p.model) for p in parts} == {("free", "tiny/rnn_rbm")}
    sequence = generated_frames(events)
    assert sequence.tobytes() == draw_frames(folder, 50, seed=(3,), **how).tobytes()
    again = process(
        build(folder, synthesis="free", seed=4, **how), tiles(make_frames(50))
    )
    assert (how.get("feedback") == "mean") or not np.array_equal(
        generated_frames(again), sequence
    )


def test_live_frames_do_not_change_a_free_sequence(folder: Path) -> None:
    sequences = [
        generated_frames(process(build(folder, synthesis="free"), tiles(frames)))
        for frames in (make_frames(60), np.zeros((60, N_BINS), np.float32))
    ]
    assert sequences[0].tobytes() == sequences[1].tobytes()


@settings(max_examples=25, deadline=None)
@given(
    tile=st.sampled_from([1, 3, 8, 25]),
    script=st.lists(
        st.tuples(st.sampled_from(["frames", "gap", "advance"]), st.integers(1, 20)),
        min_size=1,
        max_size=12,
    ),
)
def test_a_sequence_is_the_same_through_gaps_and_stalls(
    folder: Path, tile: int, script: list[tuple[str, int]]
) -> None:
    """Frames have the same values and numbers however the position advances."""
    model = build(folder, synthesis="free")
    position, clock, events = 0, 0, []
    for what, count in script:
        if what == "frames":
            events += process(model, tiles(make_frames(count), tile, position))
            position += count
        elif what == "gap":
            events += model.process(Gap(position * HOP, (position + count) * HOP, "x"))
            position += count
        else:
            clock = max(clock, position) + count
            events += model.advance(clock * HOP)
        clock = max(clock, position)
    while True:  # until it has caught up
        more = list(model.advance(clock * HOP))
        if not synthesis_of(more):
            break
        events += more
    sequence = generated_frames(events)
    assert len(sequence) == clock
    assert sequence.tobytes() == draw_frames(folder, clock).tobytes()
    assert max(len(part.values) for part in synthesis_of(events)) <= 50


def test_a_sequence_more_than_a_second_behind_skips_frame_numbers(folder: Path) -> None:
    model = build(folder, synthesis="free")
    process(model, tiles(make_frames(8)))
    parts = synthesis_of(model.process(Gap(8 * HOP, 10_008 * HOP, "device lost")))
    assert [(p.first, len(p.values)) for p in parts] == [(10_008 - 16, 16)]
    expected = draw_frames(folder, 24)[8:]
    assert parts[0].values.tobytes() == expected.tobytes()


def test_a_fast_sequence_runs_ahead_by_sixteen_frames_per_tile(folder: Path) -> None:
    model = build(folder, synthesis="free", pace="fast")
    events = process(model, tiles(make_frames(40)))
    assert [len(p.values) for p in synthesis_of(events)] == [16] * 5
    assert generated_frames(events).tobytes() == draw_frames(folder, 80).tobytes()


def test_advance_before_any_audio_generates_in_free_mode_only(folder: Path) -> None:
    model = build(folder, synthesis="free")
    assert generated_frames(list(model.advance(10 * HOP + 5))).shape == (10, N_BINS)
    assert list(model.advance(10 * HOP + 50)) == []
    for quiet in ("off", "predict", "continue"):
        assert list(build(folder, synthesis=quiet).advance(9_000)) == []


# ---- continue ------------------------------------------------------------------------


def test_a_continuation_continues_through_a_gap(folder: Path) -> None:
    model = build(folder, synthesis="continue", continue_frames=60)
    frames = make_frames(64)
    begun = process(model, [*tiles(frames), Offset(0, 2000, 7000, False)])
    rest = list(model.process(Gap(64 * HOP, 200 * HOP, "overrun")))
    last = (7000 - LENGTH) // HOP
    states = scored(folder, frames)["states"]
    expected = draw_frames(folder, 60, frames[last], states[last - 1], (0, 0))
    np.testing.assert_allclose(
        generated_frames([*begun, *rest]), expected[: 64 - last - 1 + 16]
    )
    more = process(model, tiles(make_frames(40), first=200))
    np.testing.assert_allclose(generated_frames([*begun, *rest, *more]), expected)


def test_the_next_segment_ends_a_continuation(folder: Path) -> None:
    model = build(folder, synthesis="continue", continue_frames=100)
    items = tiles(make_frames(80))
    events = process(
        model,
        [*items[:4], Offset(0, 0, 3000, False), *items[4:8], Offset(1, 0, 7000, False)],
    )
    firsts = [(part.first, part.mode) for part in synthesis_of(events)]
    assert firsts[0] == ((3000 - LENGTH) // HOP + 1, "continue")
    assert firsts[-1] == ((7000 - LENGTH) // HOP + 1, "continue")


def test_a_silence_detector_detects_silence_only_after_sound() -> None:
    loud, quiet = np.full(4, 0.9), np.full(4, 0.1)

    def ends(pattern: str) -> list[bool]:
        detector = SilenceDetector(0.5)
        return [detector.push(loud if letter == "#" else quiet) for letter in pattern]

    assert not any(ends("." * 40))
    assert not any(ends("#########........."))
    assert ends("...#..........") == [False] * 13 + [True]


def test_a_continuation_until_silence_is_no_longer_than_one_without(
    folder: Path,
) -> None:
    def length(until: str) -> int:
        model = build(
            folder, synthesis="continue", continue_frames=80, continue_until=until
        )
        frames = make_frames(200)
        mark = Offset(0, 20 * HOP, 42 * HOP, False)
        items = tiles(frames)
        return len(generated_frames(process(model, [*items[:6], mark, *items[6:]])))

    assert length("frames") == 80
    assert 0 < length("silence") <= 80


# ---- switching ---------------------------------------------------------------------


def test_a_sequence_continues_when_its_options_change(folder: Path) -> None:
    model = build(folder, synthesis="free")
    events = process(model, tiles(make_frames(16)))
    change(model, temperature=0.3, feedback="mean")
    events += process(model, tiles(make_frames(16), first=16))
    sequence = generated_frames(events)
    expected = draw_frames(folder, 32)
    assert sequence[:16].tobytes() == expected[:16].tobytes()
    assert not np.array_equal(sequence[16:], expected[16:])
    change(model, temperature=1.0, feedback="mean_residual", seed=5)
    first = generated_frames(process(model, tiles(make_frames(16), first=32)))
    other = build(folder, synthesis="free")
    process(other, tiles(make_frames(16)))
    change(other, temperature=0.3, feedback="mean")
    process(other, tiles(make_frames(16), first=16))
    change(other, temperature=1.0, feedback="mean_residual", seed=6)
    assert not np.array_equal(
        generated_frames(process(other, tiles(make_frames(16), first=32))), first
    )


MODES = ("off", "predict", "continue", "free", "prime")


@settings(max_examples=30, deadline=None)
@given(
    modes=st.lists(st.sampled_from(MODES), min_size=2, max_size=6),
    sound=st.booleans(),
)
def test_any_change_of_modes_gives_whole_pieces_of_audio(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    modes: list[str],
    sound: bool,
) -> None:
    """Each piece has a beginning and an end; a mode that is left gives no events."""
    path = tmp_path_factory.getbasetemp() / "modes.wav"
    if not path.exists():
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    model = build(folder, prime=str(path), sound=sound)
    events, first = [], 0
    for mode in modes:
        change(model, synthesis=mode)
        items = tiles(make_frames(24), first=first)
        items.insert(2, Offset(0, (first + 1) * HOP, (first + 12) * HOP, False))
        part = process(model, items)
        first += 24
        found = {p.mode for p in synthesis_of(part)}
        assert found <= {mode}, "another mode continued"
        assert found or mode == "off"
        surprises = [e.first for e in part if isinstance(e, Surprise)]
        assert surprises == [first - 24, first - 16, first - 8]
        events += part
    events += model.flush()
    pieces = _pieces([e for e in events if isinstance(e, Audio)])
    n_pieces = len(pieces)
    assert (n_pieces > 0) == (sound and set(modes) != {"off"})
    for piece in pieces:
        samples = np.concatenate([e.samples for e in piece])[:, 0]
        assert piece[-1].last
        assert not any(e.last for e in piece[:-1])
        loudest = abs(samples).max()
        assert abs(samples[[0, -1]]).max() <= 0.05 * loudest + 1e-6, "a click"


def _pieces(sounds: list[Audio]) -> list[list[Audio]]:
    pieces: list[list[Audio]] = []
    for event in sounds:
        if not pieces or pieces[-1][-1].last:
            pieces.append([])
        elif pieces[-1]:
            assert event.start == pieces[-1][-1].stop, "a hole in a piece"
        pieces[-1].append(event)
    return pieces


def test_audio_is_switched_on_and_off_while_a_sequence_continues(folder: Path) -> None:
    model = build(folder, synthesis="free")
    parts = []
    for index, sound in enumerate((False, True, True, False)):
        change(model, sound=sound, temperature=0.5 + index / 10)
        parts.append(process(model, tiles(make_frames(24), first=24 * index)))
    kinds = [[isinstance(e, Audio) for e in part] for part in parts]
    assert [any(k) for k in kinds] == [False, True, True, True]
    last = [e for e in parts[3] if isinstance(e, Audio)]
    assert [e.last for e in last] == [True]
    assert len(generated_frames([e for part in parts for e in part])) == 96


def test_reset_restarts_the_sequence_and_keeps_the_options(folder: Path) -> None:
    model = build(folder, synthesis="off")
    change(model, synthesis="free", seed=9)
    events = process(model, tiles(make_frames(24)))
    model.reset()
    assert model.options.seed == 9
    again = process(model, tiles(make_frames(24)))
    assert list(map(canonical, again)) == list(map(canonical, events))
    assert isinstance(events[1], Synthesis)
    assert isinstance(tiles(make_frames(8))[0], Frames)

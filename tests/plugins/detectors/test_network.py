"""Network detector: segments in the posteriors of a classifier."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import (
    Bundle,
    ClassifierSpec,
    FrontEnd,
    Manifest,
)
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import BundleError, ConfigError, StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Gap, Offset, Onset, Posteriors, StreamInfo
from neurovocal.engine.testing import gather
from neurovocal.plugins.detectors.network import NetworkOptions, plugin

RATE, HOP, FRAME = 32_000, 128, 256
UNITS = ["a", "b", ""]


def bundle(classifier: ClassifierSpec | None) -> Bundle:
    front_end = FrontEnd(
        sample_rate=RATE, hop_length=HOP, frame_length=FRAME, n_bins=129
    )
    manifest = Manifest(
        name="test",
        species="none",
        licence="none",
        attribution="none",
        front_end=front_end,
        classifier=classifier,
    )
    return Bundle(Path("test"), manifest)


def make(which: Bundle | None = None, **options: Any) -> Any:
    which = which or bundle(ClassifierSpec(units=UNITS, state={}))
    info = StreamInfo("s", RATE)
    context = BuildContext(ManualClock(), "run", info=info, bundle=which)
    return plugin.build(NetworkOptions(**options), context)


def posteriors(voiced: NDArray[np.floating], first: int = 0) -> Posteriors:
    rows = np.stack([voiced * 0.7, voiced * 0.3, 1 - voiced], axis=1)
    return Posteriors(first, HOP, FRAME, rows.astype(np.float32))


def test_a_segment_lies_around_the_centres_of_its_frames() -> None:
    voiced = np.zeros(40)
    voiced[10:20] = 0.9
    stage = make()
    marks = [*stage.process(posteriors(voiced)), *stage.flush()]
    assert [type(m) for m in marks] == [Onset, Offset]
    # Centre of frame k at k * 128 + 128, and half a hop to both sides.
    assert marks[0].sample == 10 * 128 + 64
    assert marks[0].score == pytest.approx(0.9)
    assert marks[1].sample == 20 * 128 + 64
    assert not marks[1].truncated


def test_two_thresholds_minimum_and_gap_fill() -> None:
    voiced = np.full(80, 0.1)
    voiced[5:15] = 0.5  # never reaches `on`
    voiced[20:22] = 0.9  # 8 ms: too short
    voiced[30:40] = 0.9
    voiced[35] = 0.1  # 4 ms: filled
    voiced[40:44] = 0.5  # still above `off`
    stage = make(lookback_ms=0)
    marks = [*stage.process(posteriors(voiced)), *stage.flush()]
    found = [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]
    assert found == [(30 * 128 + 64, 44 * 128 + 64)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.45, 0.7, 1.0]), min_size=2, max_size=120),
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.integers(0, 100),
)
def test_marks_do_not_depend_on_tiles(
    voiced: list[float], tiles: list[int], first: int
) -> None:
    values = np.array(voiced)
    half = len(values) // 2
    gap_start = (first + half - 1) * HOP + FRAME
    gap = Gap(gap_start, gap_start + 1000, "overrun")
    later = first + half + 10

    def items(cut: bool) -> list[Posteriors | Gap]:
        parts: list[Posteriors | Gap] = []
        for at, part in ((first, values[:half]), (later, values[half:])):
            done, turn = 0, 0
            while done < len(part):
                count = tiles[turn % len(tiles)] if cut else len(part)
                parts.append(posteriors(part[done : done + count], at + done))
                done, turn = done + count, turn + 1
            if at == first:
                parts.append(gap)
        return parts

    whole = gather(make(), items(cut=False))
    assert gather(make(), items(cut=True)) == whole
    last = gap_start
    for kind, *values_ in whole:
        if kind == "Offset":
            onset, offset = values_[1:3]
            assert onset < offset
            assert offset <= last or onset >= later * HOP


def test_an_open_segment_ends_with_the_last_frame() -> None:
    stage = make()
    marks = [*stage.process(posteriors(np.ones(10))), *stage.flush()]
    assert marks[0].sample == 64
    assert marks[-1] == Offset(0, 64, 9 * HOP + FRAME, True)


def test_reset_restores_the_state_of_a_new_detector() -> None:
    stage = make()
    list(stage.process(posteriors(np.ones(10))))
    stage.reset()
    assert gather(stage, [posteriors(np.ones(10))]) == gather(
        make(), [posteriors(np.ones(10))]
    )


def test_a_bundle_without_a_classifier_is_refused() -> None:
    context = BuildContext(ManualClock(), "run", info=StreamInfo("s", RATE))
    with pytest.raises(BundleError, match="needs a bundle"):
        plugin.build(NetworkOptions(), context)
    with pytest.raises(BundleError, match="'test' has no classifier"):
        plugin.build(NetworkOptions(), replace(context, bundle=bundle(None)))


def test_contradictory_thresholds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"off \(0\.8\) is above on \(0\.6\)"):
        make(off=0.8)


def test_posteriors_of_another_grid_are_refused() -> None:
    with pytest.raises(StageError, match="every 64 samples over 256"):
        make().process(Posteriors(0, 64, 256, np.ones((2, 3), dtype=np.float32)))

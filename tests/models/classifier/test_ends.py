"""Ends of labels: where annotators set those of each unit."""

import numpy as np

from neurovocal.engine.contracts.bundle import ClassifierSpec, EndsSpec
from neurovocal.models.classifier.ends import fit_ends, pairs_of
from neurovocal.plugins.models.classifier.ends import LabelEnds

NAMES = ["", "a", "b"]


def test_a_move_that_all_segments_agree_on_is_kept_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    rows = [(1, -2 + 0.3 * x, 0.3 * y) for x, y in rng.standard_normal((40, 2))]
    rows += [(2, 0.0, 5.0)] * 4  # too few
    ends = fit_ends(rows, NAMES)
    assert list(ends) == ["a"]
    assert abs(ends["a"].onset_ms + 2) < 0.3
    assert abs(ends["a"].offset_ms) < 0.15


def test_segments_that_overlap_two_or_have_another_name_are_no_pairs() -> None:
    annotated = [(0.1, 0.2, 1), (0.3, 0.4, 1), (0.42, 0.5, 2), (0.7, 0.8, 2)]
    found = [
        (0.102, 0.199, 1),
        (0.3, 0.45, 1),  # covers two
        (0.46, 0.5, 2),  # a part of what the one before has, too
        (0.71, 0.8, 1),  # another name
        (0.9, 1.0, 1),
    ]
    ((unit, onset_ms, offset_ms),) = pairs_of(found, annotated)
    assert unit == 1
    np.testing.assert_allclose([onset_ms, offset_ms], [-2.0, 1.0])


def test_labels_never_overlap_nor_leave_the_audio() -> None:
    spec = ClassifierSpec(
        units=NAMES,
        state={},
        ends={
            "a": EndsSpec(onset_ms=-3.0, offset_ms=4.0),
            "b": EndsSpec(onset_ms=9.0, offset_ms=-9.0),
        },
    )
    ends = LabelEnds(spec, 1000)
    assert ends.longest == 4
    assert ends("a", 100, 150, 0, 1000) == (97, 154)
    assert ends("a", 100, 150, 99, 152) == (99, 152)
    assert ends("a", 1, 150, 0, 100) == (0, 150)
    assert ends("unknown", 100, 150, 103, 1000) == (103, 150)
    assert ends("b", 100, 110, 0, 1000) == (100, 110)  # shorter than the moves

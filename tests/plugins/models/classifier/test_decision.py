"""Decision on a segment's unit: calibration, thresholds, typical segments."""

from typing import Any

import numpy as np
import pytest

from neurovocal.engine.contracts.bundle import ClassifierSpec
from neurovocal.plugins.models.classifier.decision import LabelDecision


def spec(**changes: Any) -> ClassifierSpec:
    content = {"units": ["", "a", "b"], "state": {}}
    return ClassifierSpec.model_validate({**content, **changes})


def test_decision_is_a_softmax_over_units_without_silence() -> None:
    log_p = np.array([-3.1, -3.0, -4.0])
    unit, posterior = LabelDecision(spec())(log_p, n_frames=9)
    assert (unit, posterior) == ("a", pytest.approx(1 / (1 + np.exp(-1.0))))
    unit, posterior = LabelDecision(spec(temperature=4.0))(log_p, n_frames=9)
    assert (unit, posterior) == ("a", pytest.approx(1 / (1 + np.exp(-0.25))))


def test_a_segment_whose_frames_vote_for_silence_is_unknown() -> None:
    log_p = np.array([-2.9, -3.0, -9.0])
    assert LabelDecision(spec())(log_p, n_frames=9)[0] == "unknown"
    # With decision `last` silence has no vote.
    assert LabelDecision(spec(decision="last"))(log_p, n_frames=9)[0] == "a"
    # Before the offset silence has no vote.
    assert LabelDecision(spec()).early(log_p, 1)[0] == "a"


@pytest.mark.parametrize(
    ("decision", "n_frames", "unit"),
    [
        ("vote", 10, "a"),
        ("vote", 4, "unknown"),  # too short
        ("vote", 21, "unknown"),  # too long
        ("vote", 5, "unknown"),  # -1 over 5 frames: below the agreement
        ("last", 5, "unknown"),
        ("last", 21, "unknown"),
    ],
)
def test_a_segment_not_typical_of_its_unit_is_unknown(
    decision: str, n_frames: int, unit: str
) -> None:
    typical = {"a": {"shortest": 5, "longest": 20, "agreement": -0.15}}
    like = spec(decision=decision, typical=typical)
    log_p = np.array([-9.0, -1.0, -2.0])
    found, posterior = LabelDecision(like)(log_p, n_frames=n_frames)
    assert found == unit
    assert posterior == pytest.approx(0.731, abs=1e-3)
    assert LabelDecision(like, typical=False)(log_p, n_frames=n_frames)[0] == "a"
    assert LabelDecision(like).early(log_p, 1)[0] == "a"


def test_early_labels_use_the_calibration_for_their_frames() -> None:
    early = [
        {"frames": 2, "temperature": 1.0},
        {"frames": 5, "temperature": 4.0, "thresholds": {"a": 0.9}},
    ]
    decide = LabelDecision(spec(temperature=9.0, early=early))
    log_p = np.array([-9.0, -1.0, -2.0])
    for n_frames, temperature, unit in [
        (1, 1.0, "a"),
        (4, 1.0, "a"),
        (5, 4.0, "unknown"),
        (99, 4.0, "unknown"),
    ]:
        found, posterior = decide.early(log_p, n_frames)
        assert found == unit
        assert posterior == pytest.approx(1 / (1 + np.exp(-1 / temperature)))
    assert decide(log_p, n_frames=9)[1] == pytest.approx(1 / (1 + np.exp(-1 / 9)))
    with pytest.raises(ValueError, match="must rise"):
        spec(early=early[::-1])


@pytest.mark.parametrize(
    ("bundle", "user", "least", "unit"),
    [
        ({}, {}, 0.0, "a"),
        ({"a": 0.8}, {}, 0.0, "none of them"),
        ({"b": 0.8}, {}, 0.0, "a"),
        ({"a": 0.8}, {"a": 0.7}, 0.0, "a"),
        ({}, {"a": 0.74}, 0.0, "none of them"),
        ({}, {}, 0.74, "none of them"),
        ({"a": 0.1}, {"a": 0.2}, 0.74, "none of them"),
    ],
)
def test_a_posterior_below_the_threshold_is_unknown(
    bundle: dict[str, float], user: dict[str, float], least: float, unit: str
) -> None:
    decide = LabelDecision(spec(thresholds=bundle, unknown="none of them"), user, least)
    found, posterior = decide(np.array([-9.0, -1.0, -2.0]), n_frames=9)
    assert found == unit
    assert posterior == pytest.approx(0.731, abs=1e-3)

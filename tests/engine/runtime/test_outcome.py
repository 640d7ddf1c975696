"""Exit code of a run: any loss is 3, any failure 2, whatever else happened."""

from collections import Counter
from typing import Any

import pytest

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.runtime.outcome import Outcome

LOSSES: dict[str, dict[str, Any]] = {
    "samples": {"lost_samples": 1},
    "messages or blocks": {"dropped": Counter(audio=1)},
    "events of a failing sink": {"dropped": Counter(label=1)},
    "refused clips": {"losses": ["1 clip could not be written to 'clips'"]},
    "what was queued at a forced stop": {"forced": True},
}


@pytest.mark.parametrize("what", LOSSES)
def test_any_loss_is_3_and_is_told_once(what: str) -> None:
    outcome = Outcome(**LOSSES[what])
    assert outcome.exit_code == 3
    assert len(outcome.sentences()) == 1


@pytest.mark.parametrize("what", LOSSES)
@pytest.mark.parametrize(
    ("error", "code"), [(StageError("gone"), 2), (ConfigError("wrong"), 1)]
)
def test_a_failure_goes_before_a_loss(what: str, error: Exception, code: int) -> None:
    outcome = Outcome(**LOSSES[what])
    outcome.note(error)
    assert outcome.exit_code == code
    assert len(outcome.sentences()) == 2, "the loss is told, too"


def test_a_recording_that_was_set_aside_is_a_failure() -> None:
    assert Outcome(errors=["a.wav: cannot be read"]).exit_code == 2


def test_nothing_lost_is_0() -> None:
    assert Outcome(seconds=1.0, streams=1).exit_code == 0

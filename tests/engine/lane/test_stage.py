"""Supervised stage: failures are contained by policy, counted, reported once."""

import logging

import pytest

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Frames, Health, StreamInfo
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.stage import StageMetrics, SupervisedStage
from neurovocal.engine.support.calls import Backoff
from neurovocal.engine.testing import canonical, recut, song

CLOCK = ManualClock()


class Counter:
    """Returns the number of items since reset; fails at the calls `fails_at`."""

    def __init__(self, fails_at=(), reset_fails=False):
        self.calls, self.state = 0, 0
        self.fails_at = fails_at
        self.reset_fails = reset_fails

    def process(self, item):
        self.calls += 1
        self.state += 1
        if self.calls in self.fails_at:
            yield "never seen: the item failed as a whole"
            raise ValueError(f"item {item} is bad")
        yield self.state

    def flush(self):
        return [self.state]

    def reset(self):
        if self.reset_fails:
            raise OSError("out of order")
        self.state = 0


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "neurovocal")


def answers(supervised, n_items):
    return [supervised.process(index) for index in range(n_items)]


def test_calls_and_events_of_a_working_stage_are_counted():
    supervised = SupervisedStage("counter", Counter())
    assert answers(supervised, 3) == [[1], [2], [3]]
    assert supervised.flush() == [3]
    metrics = supervised.metrics
    assert (metrics.items, metrics.events, metrics.errors) == (4, 4, 0)


def test_busy_time_includes_failed_calls():
    now = iter(range(0, 1000, 5))
    supervised = SupervisedStage(
        "c", Counter(fails_at={2}), "skip", timer=lambda: next(now)
    )
    answers(supervised, 3)
    assert supervised.metrics.busy_ns == 15


def test_policy_fail_raises_a_stage_error_that_names_the_stage():
    supervised = SupervisedStage("model 'counter'", Counter(fails_at={2}))
    supervised.process(0)
    with pytest.raises(StageError) as caught:
        supervised.process(1)
    assert str(caught.value) == "model 'counter' failed: ValueError: item 1 is bad"
    assert isinstance(caught.value.__cause__, ValueError)


def test_policy_skip_drops_the_item_and_keeps_the_state():
    supervised = SupervisedStage("counter", Counter(fails_at={2, 3}), "skip")
    assert answers(supervised, 5) == [
        [1],
        [Health("counter", "lossy", "ValueError: item 1 is bad")],
        [],  # reported once, counted each time
        [4, Health("counter", "healthy", "it works again")],
        [5],
    ]
    assert supervised.metrics.errors == 2


def test_policy_restart_drops_the_item_and_resets_the_stage():
    supervised = SupervisedStage("counter", Counter(fails_at={3}), "restart")
    assert answers(supervised, 5) == [
        [1],
        [2],
        [Health("counter", "restarting", "ValueError: item 2 is bad")],
        [1, Health("counter", "healthy", "it works again")],
        [2],
    ]


@pytest.mark.parametrize("policy", ["skip", "restart"])
def test_a_stage_that_always_fails_is_switched_off(policy):
    stage = Counter(fails_at=range(1000))
    supervised = SupervisedStage("counter", stage, policy, limit=3)
    reported = [event for events in answers(supervised, 10) for event in events]
    state = "lossy" if policy == "skip" else "restarting"
    assert reported == [
        Health("counter", state, "ValueError: item 0 is bad"),
        Health(
            "counter", "failed", "switched off; last error: ValueError: item 2 is bad"
        ),
    ]
    assert supervised.failed
    assert stage.calls == 3, "it must not cost time any more"
    assert supervised.flush() == []

    stage.fails_at = ()
    supervised.reset()
    assert not supervised.failed
    assert answers(supervised, 2) == [[1], [2]]


def test_a_stage_whose_reset_fails_is_switched_off():
    supervised = SupervisedStage("counter", Counter({2}, reset_fails=True), "restart")
    reported = [event for events in answers(supervised, 4) for event in events]
    detail = "switched off; last error: its reset failed: OSError: out of order"
    assert reported == [1, Health("counter", "failed", detail)]
    assert supervised.failed


def test_failures_with_successes_between_do_not_switch_a_stage_off():
    supervised = SupervisedStage(
        "counter", Counter(fails_at=range(1, 100, 2)), "skip", limit=2
    )
    answers(supervised, 50)
    assert not supervised.failed
    assert supervised.metrics.errors == 25


def test_a_warning_is_logged_once_per_series_of_failures(caplog):
    caplog.set_level(logging.WARNING, "neurovocal")
    logging.getLogger("neurovocal").propagate = True
    answers(SupervisedStage("counter", Counter({2, 3, 4}), "skip"), 6)
    assert [record.getMessage() for record in caplog.records] == [
        "counter failed and goes on: ValueError: item 1 is bad"
    ]


class Brittle:
    """A model that fails at every third frames item, never at marks."""

    latency = 0

    def __init__(self):
        self.n_items = 0

    def process(self, item):
        self.n_items += isinstance(item, Frames)
        if isinstance(item, Frames) and self.n_items % 3 == 0:
            raise RuntimeError("no")
        return ()

    def flush(self):
        return ()

    def reset(self):
        self.n_items = 0


@pytest.mark.parametrize("policy", ["skip", "restart"])
def test_a_failing_model_does_not_change_the_events_of_other_models(policy):
    def events(models):
        registry, info = Registry(), StreamInfo("cage", 16_000)
        context = BuildContext(clock=CLOCK, run="test", info=info)

        def build(kind, name):
            plugin = registry.get(kind, name)
            stage = plugin.build(plugin.options(), context)
            return SupervisedStage(name, stage)

        features, detector = (
            build("features", "spectrogram"),
            build("detector", "energy"),
        )
        supervised_models = [
            SupervisedStage("brittle", model, policy) for model in models
        ]
        lane = Lane(info, 1024, features, detector, supervised_models)
        steps = [
            s for block in recut(song(16_000, 1.5), [700]) for s in lane.process(block)
        ]
        steps += lane.flush()
        return [event for step in steps for event in step.events]

    without = [canonical(event) for event in events([])]
    with_brittle = events([Brittle()])
    others = [e for e in with_brittle if not isinstance(e, Health)]
    assert [canonical(event) for event in others] == without
    states = [e.state for e in with_brittle if isinstance(e, Health)]
    assert len(states) >= 6
    first = "lossy" if policy == "skip" else "restarting"
    assert states == [first, "healthy"] * (len(states) // 2)


def test_backoff_doubles_up_to_the_longest_pause_and_resets():
    backoff = Backoff()
    assert [backoff.pause_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.pause_s() == 0.5


def test_metrics_as_plain_numbers():
    metrics = StageMetrics(items=3, events=2, errors=1, busy_ns=1_234_567)
    assert metrics.as_dict() == {
        "items": 3,
        "events": 2,
        "errors": 1,
        "busy_ms": 1.235,
    }

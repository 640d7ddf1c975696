"""Plugins that raise SystemExit, hang in close, or leave threads running."""

import subprocess
import sys
import threading
from pathlib import Path
from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S
from stages import runners as scripted
from stages.runners import INFO, SegmentLabeller, audio, make_runner, many, then_wait

from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import Frames, Health, Label, Offset
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")

RUDE = [SystemExit(0), KeyboardInterrupt(), MemoryError("full"), GeneratorExit()]


def names(errors):
    return [type(error).__name__ for error in errors]


@pytest.fixture
def exiting(monkeypatch):
    """A model that raises its `error` at the second frames."""

    class Exiting(SegmentLabeller):
        error: BaseException = SystemExit(0)
        n_frames = 0

        def process(self, item):
            if isinstance(item, Frames):
                self.n_frames += 1
                if self.n_frames == 2:
                    raise self.error
            return super().process(item)

    monkeypatch.setitem(scripted.STAGES, "exiting", Exiting)
    return Exiting


@pytest.mark.parametrize("error", RUDE, ids=names(RUDE))
def test_a_model_that_raises_an_exit_is_restarted(exiting, error):
    exiting.error = error
    sink = CollectSink()
    outcome = make_runner(
        ScriptedSource(INFO, many(20)), sink, models=["exiting"]
    ).run()
    assert outcome.exit_code == 0
    states = [h.state for h in sink.events(Health)]
    assert states == ["restarting", "healthy"]
    assert type(error).__name__ in sink.events(Health)[0].detail
    assert len(sink.events(Label)) == len(sink.events(Offset)) == 20


@pytest.mark.parametrize("error", RUDE, ids=names(RUDE))
def test_a_source_that_raises_an_exit_fails_the_run_and_segments_are_closed(error):
    class Exiting(ScriptedSource):
        def read(self, timeout):
            item = super().read(timeout)
            if item is None:
                raise error
            return item

    sink = CollectSink()
    source = Exiting(INFO, [audio("..###"), None])
    outcome = make_runner(source, sink, models=["namer"]).run()
    assert outcome.exit_code == 2
    assert type(error).__name__ in outcome.sentences()[0]
    assert sink.events(Offset) == [Offset(0, 20, 50, True)]  # segments are closed
    assert source.closed == 1


@pytest.mark.parametrize("error", RUDE, ids=names(RUDE))
@pytest.mark.parametrize("policy", ["skip", "fail"])
def test_a_sink_that_raises_an_exit_loses_one_message_and_other_sinks_none(
    error, policy
):
    class Exiting(CollectSink):
        def write(self, message):
            if isinstance(message.event, Label) and message.event.segment == 3:
                raise error
            super().write(message)

        def close(self):
            super().close()
            raise error

    rude, kind = Exiting(), CollectSink()
    source = ScriptedSource(INFO, many(20))
    runner = make_runner(
        source, rude, kind, models=["namer"], sink=[{"on_error": policy}, {}]
    )
    outcome = runner.run()
    assert outcome.exit_code == 2  # closing failed, too
    assert outcome.dropped["label"] >= 1
    assert type(error).__name__ in " ".join(outcome.sentences())
    if policy == "skip":
        assert len(kind.events(Label)) == 20
        assert len(rude.events(Label)) == 19


def test_a_plugin_that_exits_in_open_raises_a_stage_error():
    class Exiting(ScriptedSource):
        def open(self):
            sys.exit(0)

    sink = CollectSink()
    with pytest.raises(StageError, match=r"gave up while it was opened: SystemExit"):
        make_runner(Exiting(INFO, []), sink).run()
    assert sink.closed == 1


def test_a_sink_that_never_closes_is_abandoned_by_a_forced_stop(background):
    closing, never = Flag(), Flag()

    class Clinging(CollectSink):
        def close(self):
            closing.set()
            never.wait(PATIENCE_S)

    kind, source = CollectSink(), ScriptedSource(INFO, many(3))
    runner = make_runner(source, kind, Clinging(), models=["namer"])
    run = background(runner.run)
    assert closing.wait(PATIENCE_S)
    runner.stop(force=True)  # the second Ctrl-C
    outcome = run()
    never.set()
    assert outcome.forced
    assert outcome.exit_code == 3
    assert (kind.closed, source.closed) == (1, 1)


def test_an_exception_in_a_thread_of_a_plugin_is_published_as_health(background):
    failed, over = Flag(), Flag()

    class Busy(ScriptedSource):
        def open(self):
            super().open()
            threading.Thread(target=self._work, name="pump", daemon=True).start()

        def _work(self):
            assert started.wait(PATIENCE_S)
            raise OSError("the pump is dry")

    started, sink = Flag(), CollectSink()
    source = Busy(INFO, then_wait(many(4), over), live=True)
    write = scripted.flagging(sink.write, started, Label)
    sink.write = scripted.flagging(write, failed, Health)
    hook = threading.excepthook
    run = background(make_runner(source, sink, models=["namer"]).run)
    assert failed.wait(PATIENCE_S)
    over.set()
    run()
    (reported,) = [h for h in sink.events(Health) if h.stage.startswith("thread")]
    assert (reported.stage, reported.state) == ("thread 'pump'", "failed")
    assert reported.detail == "it ended: OSError: the pump is dry"
    assert threading.excepthook is hook


CLINGING = """
import threading
from neurovocal.engine.contracts.plugin import Options, Plugin
from neurovocal.engine.testing import CollectSink

class Clinging(CollectSink):
    def open(self):
        threading.Thread(target=threading.Event().wait, name="for-ever").start()

plugin = Plugin("sink", Options, lambda options, context: Clinging(), "clings")
"""
CONFIG = """
version: 1
source: {plugin: synthetic, options: {duration_s: 1}}
sinks: [{plugin: "./clinging.py:plugin"}]
"""


def test_a_thread_of_a_plugin_that_never_ends_does_not_block_exit(tmp_path: Path):
    (tmp_path / "clinging.py").write_text(CLINGING)
    (tmp_path / "c.yaml").write_text(CONFIG)
    command = [Path(sys.executable).with_name("neurovocal"), "run", "c.yaml", "--plain"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "thread 'for-ever' does not end and is left behind" in done.stderr

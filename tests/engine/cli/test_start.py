"""What a start imports: each of these costs more than the rest of a step."""

import subprocess
import sys

# Statistics and filters of SciPy, pages that only a browser asks for, training.
UNUSED = {"scipy", "torch", "matplotlib", "pandas", "numba", "charset_normalizer"}
RUN = """
import sys
from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.runtime.runner import Runner
settings = ["sinks.0.options.endpoint=tcp://127.0.0.1:*"]
settings += ["sinks.1.options.endpoint=127.0.0.1:0", "source.options.pace=asap"]
runner = Runner(plan_of(locate_config("demo", settings)))
for lane in runner.lanes:
    lane.reader.stopping.set()  # nothing is read
runner.run()
print(*sys.modules)
"""


def test_the_demo_starts_without_modules_that_it_does_not_use():
    done = subprocess.run(
        [sys.executable, "-c", RUN], check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    assert {"onnxruntime", "zmq", "uvicorn", "soundfile"} <= loaded
    tops = {name.partition(".")[0] for name in loaded}
    assert tops & UNUSED == set()
    assert "neurovocal.plugins.review.server" not in loaded


def test_options_are_defined_without_reading_their_source():
    code = """
import inspect
def refuse(*arguments):
    raise AssertionError("a source text was read")
inspect.getsource = inspect.getsourcelines = inspect.findsource = refuse
from neurovocal.engine.config import schema
from neurovocal.engine.contracts import bundle
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_start_collects_no_garbage_and_the_run_does():
    code = """
import gc, sys
from neurovocal.engine.cli import main
from neurovocal.engine.runtime.runner import Runner
started = gc.get_stats()[0]["collections"]
watch = Runner._watch
def look(self, tick):
    print(gc.get_stats()[0]["collections"] - started, gc.isenabled(), file=sys.stderr)
    self.stop()
    watch(self, tick)
Runner._watch = look
main(["run", "demo", "--json", "--set", "sinks.0.options.endpoint=tcp://127.0.0.1:*",
      "--set", "sinks.1.options.endpoint=127.0.0.1:0"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    n_collections, is_enabled = done.stderr.split("\n")[-2].split()
    assert is_enabled == "True"
    assert int(n_collections) < 10, done.stderr

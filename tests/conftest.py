"""What many tests need: the shared recordings, and threads that must not hang."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import hypothesis
import pytest
from processes.waiting import PATIENCE_S

from neurovocal.engine.support.credentials import forget_variables

# One thread for matrix products, here and in every program that a test starts: several
# workers with several threads each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test depends on how long an example takes: others use the machine, too.
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests
# that interrupt a program would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Files of minutes, the longest first: were one of them the last, the other cores of a
# parallel run would wait for it.
LONG_FILES = (
    "documentation/test_blocks.py",
    "system/test_golden.py",
    "system/installation/test_packaging.py",
    "scan/test_processes.py",
    "documentation/test_notebooks.py",
    "documentation/test_site.py",
    "engine/client/test_javascript.py",
    "system/test_review_loop.py",
    "system/test_end_to_end.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Annotated recordings beside the repository; the test is skipped without."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NEUROVOCAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip("needs the shared recordings (NEUROVOCAL_DATA)")
    return folder


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands set the log up for a terminal: the next test has one of its own."""
    yield
    log = logging.getLogger("neurovocal")
    log.handlers, log.filters = [], []
    log.propagate = True
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def variables_forgotten() -> Iterator[None]:
    """Values of variables that one test's configuration names are another's texts."""
    yield
    forget_variables()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Failures that a test causes on purpose need no log."""
    caplog.set_level(logging.CRITICAL, "neurovocal")


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Whatever a test does to a run, its threads must end.

    Those that were there before are another's: one test that fails and leaves a
    thread behind should not fail all that come after it.
    """
    before = set(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("nv-") and thread not in before:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), f"{thread.name} was left running"


class Background:
    """Calls in threads of their own, with their results and errors."""

    def __init__(self) -> None:
        self._calls: list[tuple[Thread, dict[str, Any]]] = []

    def __call__(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Start `work`; the function that comes back waits for its result."""
        result: dict[str, Any] = {}

        def call() -> None:
            try:
                result["value"] = work()
            except BaseException as error:
                result["error"] = error

        thread = Thread(target=call, daemon=True)
        self._calls.append((thread, result))
        thread.start()

        def wait() -> Any:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the call does not return"
            if "error" in result:
                raise result.pop("error")
            return result.get("value")

        return wait

    def finish(self) -> None:
        """Check that all threads have ended, and that no error is left unread."""
        for thread, result in self._calls:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a call of the test never returned"
            if "error" in result:
                raise result["error"]


@pytest.fixture
def background() -> Iterator[Background]:
    """Start calls in other threads: ``wait = background(work)``, ``wait()``."""
    calls = Background()
    yield calls
    calls.finish()

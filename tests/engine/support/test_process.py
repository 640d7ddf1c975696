"""What C libraries write to descriptor 2."""

import logging
import os
import subprocess
import sys

from neurovocal.engine.support.process import mute_libraries


def test_libraries_are_muted_until_the_last_of_several_ends(capfd):
    first, second = mute_libraries(), mute_libraries()
    first.__enter__()
    second.__enter__()
    os.write(2, b"a library")
    first.__exit__(None, None, None)
    os.write(2, b"a library")
    second.__exit__(None, None, None)
    os.write(2, b"spoken")
    assert capfd.readouterr().err == "spoken"


def test_libraries_speak_where_debugging_is_logged(capfd):
    log = logging.getLogger("neurovocal")
    before = log.level
    log.setLevel(logging.DEBUG)
    try:
        with mute_libraries():
            os.write(2, b"a library")
    finally:
        log.setLevel(before)
    assert capfd.readouterr().err == "a library"


def test_what_libraries_say_while_the_process_exits_is_discarded():
    program = """
import os, sys
class Last:
    def __del__(self):
        os.write(2, b"leaked")
last = Last()
from neurovocal.engine.cli import main
main()
"""

    def said(*arguments):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr

    assert said("run", "nothing.yaml").startswith("error: ")
    assert "leaked" not in said("run", "nothing.yaml")
    assert said("--verbose", "plugins") == "leaked"

"""What C libraries write to descriptor 2."""

import os

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

"""Memory that a process keeps for its next allocations."""

import os
import subprocess
import sys

import pytest

# Page faults of 200 arrays of 1 MB, each freed before the next, in two rounds.
_PROGRAM = """
import resource
import numpy as np
from neurovocal.engine.support.platform import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        np.ones(1 << 18, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = page_faults()
print(int(keep_freed_memory(16 << 20)), first, page_faults())
"""


def test_kept_memory_is_not_fetched_again_from_the_system() -> None:
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    text = subprocess.check_output(
        [sys.executable, "-c", _PROGRAM], env=environment, text=True
    )
    is_set, before, after = map(int, text.split())
    if not is_set:
        pytest.skip("this system's allocator has no such setting")
    assert before > 200 * 16  # such arrays have 256 pages of 4 KiB, 16 of 64 KiB
    assert after < before / 20

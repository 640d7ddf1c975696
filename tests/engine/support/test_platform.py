"""Memory that a process keeps for its next allocations, and code that it releases."""

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

_RELEASING = """
import numpy as np
from neurovocal.engine.support.platform import release_code, resident_bytes

rows = np.random.default_rng(0).normal(size=(50, 50))
first = np.linalg.svd(rows)[1]
before = resident_bytes()
released = release_code("openblas")
print(released, before - resident_bytes())
assert np.array_equal(np.linalg.svd(rows)[1], first)
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


def test_released_code_is_no_longer_resident_and_can_be_called() -> None:
    text = subprocess.check_output([sys.executable, "-c", _RELEASING], text=True)
    released, less = map(int, text.split())
    if not released:
        pytest.skip("this system cannot release it, or NumPy has no OpenBLAS")
    assert less > 0

"""Where the files of this repository lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
CONFIGS = ROOT / "configs"
TESTS = ROOT / "tests"
HELPERS = TESTS / "helpers"


def import_path(test_file: str) -> str:
    """Return what a child process puts on `sys.path` to import `test_file`."""
    return ":".join(map(str, (Path(test_file).resolve().parent, HELPERS, TESTS)))

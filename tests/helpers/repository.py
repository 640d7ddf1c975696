"""Where the files of this repository lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
CONFIGS = ROOT / "configs"
TESTS = ROOT / "tests"
HELPERS = TESTS / "helpers"


def import_path(test_file: str) -> str:
    """Return the folder that a child process needs on `sys.path` for `test_file`."""
    return ":".join(map(str, (Path(test_file).resolve().parent, HELPERS, TESTS)))

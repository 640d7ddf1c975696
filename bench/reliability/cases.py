"""Run the scripts of ../shared/cases on this checkout: ``make cases``.

Each script of the folder makes some situations, runs the program in them and prints
``-- NAME: right N of M; wrong: IDS``. They run one after another, each with a scratch
folder below a temporary one, and make one table:

    .venv/bin/python bench/reliability/cases.py --only 'c0*'

Exit code 1: a situation is wrong, or a script did not finish. Without the folder of
the scripts nothing is run.
"""

import argparse
import fnmatch
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases"
PROGRAM = ROOT / ".venv" / "bin" / "neurovocal"
_LAST = re.compile(rb"^-- \S+ right (\d+) of (\d+)(?:; wrong: (.*))?$", re.MULTILINE)
_ROW = "{:<24} {:>9} {:>7}  {}"


class Verdict(NamedTuple):
    """Result of one script; `n_cases` is 0 if it did not finish."""

    script: str
    n_right: int
    n_cases: int
    wrong: str
    seconds: float

    @property
    def is_right(self) -> bool:
        """True if every situation came out right."""
        return 0 < self.n_cases == self.n_right

    def row(self) -> str:
        """Return the row of the table."""
        count = f"{self.n_right} of {self.n_cases}" if self.n_cases else "-"
        return _ROW.format(self.script, count, f"{self.seconds:.0f} s", self.wrong)


def main() -> int:
    """Run the scripts; return 0 if all situations are right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", help="pattern of the scripts' names")
    parser.add_argument("--cases", type=Path, default=CASES, help="folder of scripts")
    parser.add_argument("--program", type=Path, default=PROGRAM)
    parser.add_argument("--minutes", type=float, default=15, help="most for a script")
    given = parser.parse_args()
    scripts = find_scripts(given.cases, given.only)
    if not given.cases.is_dir():
        print(f"skipped: there is no folder '{given.cases}'")
        return 0
    if not scripts:
        print(f"no script in '{given.cases}' is called '{given.only}'")
        return 1
    print(_ROW.format("script", "right", "time", "wrong"), flush=True)
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="cases-") as scratch:
        for script in scripts:
            verdicts.append(judge(script, given.program, scratch, given.minutes * 60))
            print(verdicts[-1].row(), flush=True)
    n_right = sum(verdict.n_right for verdict in verdicts)
    n_cases = sum(verdict.n_cases for verdict in verdicts)
    n_wrong = sum(not verdict.is_right for verdict in verdicts)
    end = f"in {n_wrong} scripts something is wrong" if n_wrong else ""
    print(_ROW.format("all", f"{n_right} of {n_cases}", "", end))
    return 1 if n_wrong else 0


def find_scripts(folder: Path, pattern: str) -> list[Path]:
    """Return the scripts with a verdict, `NAME.py` in a folder of their subject."""
    return [
        path
        for path in sorted(folder.glob("*/*_*.py"))
        if fnmatch.fnmatch(path.stem, pattern)
    ]


def judge(script: Path, program: Path, scratch: str, most_s: float) -> Verdict:
    """Run one script and read its last line.

    Parameters
    ----------
    script : Path
        Script of situations.
    program : Path
        The neurovocal program.
    scratch : str
        Folder below which it works.
    most_s : float
        Seconds after which it is ended, with all that it started.
    """
    began_s = time.monotonic()
    settings = {**os.environ, "NV": str(program), "WORK": scratch, "QUIET": "1"}
    with subprocess.Popen(
        [str(program.with_name("python")), str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=settings,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=most_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            output, _ = process.communicate()
    seconds = time.monotonic() - began_s
    last = _LAST.search(output)
    if last is None:
        said = output.decode(errors="replace").strip().split("\n")[-1][:80]
        return Verdict(script.stem, 0, 0, f"did not finish: {said}", seconds)
    right, cases, wrong = last.groups()
    ids = (wrong or b"").decode(errors="replace")
    return Verdict(script.stem, int(right), int(cases), ids, seconds)


if __name__ == "__main__":
    sys.exit(main())

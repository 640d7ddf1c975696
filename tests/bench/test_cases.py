"""Scripts of situations: one table, and exit code 1 if one is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

SCRIPT = ROOT / "bench" / "reliability" / "cases.py"
RIGHT = 'print("-- a_right.py: right 2 of 2")'
WRONG = 'print("1 WRONG that")\nprint("-- b_wrong.py: right 1 of 3; wrong: 1 2")'
FAILS = 'raise SystemExit("no program")'
HANGS = "import time\ntime.sleep(1000)"


@pytest.fixture
def cases(tmp_path):
    folder = tmp_path / "cases" / "audio"
    folder.mkdir(parents=True)
    for name, code in (
        ("a_right", RIGHT),
        ("b_wrong", WRONG),
        ("c_fails", FAILS),
        ("d_hangs", HANGS),
        ("shared", "1 / 0"),
    ):
        (folder / f"{name}.py").write_text(code)
    return folder.parent


def run(cases, *options):
    program = Path(sys.executable).with_name("neurovocal")
    command = [sys.executable, SCRIPT, "--cases", cases, "--program", program]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.returncode, [line.split() for line in done.stdout.splitlines()]


def test_one_table_of_all_scripts(cases):
    code, rows = run(cases, "--only", "[abc]*")
    assert code == 1
    assert [row[0] for row in rows] == [
        "script",
        "a_right",
        "b_wrong",
        "c_fails",
        "all",
    ]
    assert rows[1][1:4] == ["2", "of", "2"]
    assert rows[2][1:4] + rows[2][6:] == ["1", "of", "3", "1", "2"]
    assert rows[3][4:] == ["did", "not", "finish:", "no", "program"]
    assert rows[4][1:4] == ["3", "of", "5"]


def test_a_script_that_hangs_is_ended_and_wrong(cases):
    code, rows = run(cases, "--only", "d_*", "--minutes", "0.01")
    assert code == 1
    assert rows[1][:2] == ["d_hangs", "-"]


def test_all_right_or_nothing_to_run(cases):
    assert run(cases, "--only", "a_*")[0] == 0
    assert run(cases, "--only", "x_*")[0] == 1
    code, rows = run(cases / "absent")
    assert (code, rows[0][0]) == (0, "skipped:")

"""Colours and shapes of units: the same on each page, whatever comes first."""

import json
import subprocess

from neurovocal.plugins.web.server import PAGE

SCRIPT = """
const { UnitMarks } = await import(process.argv[1]);
const marks = new UnitMarks();
const units = JSON.parse(process.argv[2]);
const found = units.map((unit) => [unit, marks.colour(unit), marks.shape(unit)]);
console.log(JSON.stringify(found));
"""


def marks_of(units: list[str]) -> dict[str, tuple[int, str]]:
    arguments = [str(PAGE / "js" / "colours.js"), json.dumps(units)]
    done = subprocess.run(
        ["node", "--input-type=module", "-e", SCRIPT, *arguments],
        capture_output=True,
        check=True,
        text=True,
    )
    return {unit: (colour, shape) for unit, colour, shape in json.loads(done.stdout)}


def test_marks_do_not_depend_on_what_is_heard_first():
    units = [*"abcdefghijk", "call", "chirp", "X", "7"]
    assert marks_of(units) == marks_of(units[::-1])


def test_units_differ_in_colour_or_shape():
    units = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "one", "two"]
    assert len(set(marks_of(units).values())) == len(units)


def test_unknown_has_the_mark_of_no_unit():
    assert marks_of(["unknown"]) == {"unknown": (-1, "?")}

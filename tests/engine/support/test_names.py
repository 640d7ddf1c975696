"""Names and texts of strangers: bounded, escaped, no formulas."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.support.names import beside, bounded_name
from neurovocal.engine.support.text import escaped, plain, plain_name, without_formula

NAMES = (
    st.binary(min_size=1, max_size=255)
    .map(os.fsdecode)
    .map(lambda name: name.replace("/", "-").replace("\0", "-"))
)


@given(NAMES, st.sampled_from(["", ".1.left", ".damaged-2026-05-01T04"]))
def test_a_name_beside_any_other_is_short_enough(name, middle):
    if name.strip(".") == "":
        name = "a"
    path = beside(Path("folder") / name, before=".", middle=middle, after=".part")
    assert len(os.fsencode(path.name)) <= 255
    assert path.parent == Path("folder")
    assert path.name.startswith(".")
    assert path.name.endswith(".part")


def test_long_names_stay_different_and_keep_their_suffix(tmp_path):
    names = ["ф" * 125 + f"{end}.wav" for end in "ab"]
    found = {beside(tmp_path / name, middle=".1.left") for name in names}
    assert len(found) == 2
    for path in found:
        path.write_bytes(b"")
        assert path.name.endswith(".1.left.wav")
    assert (
        beside(Path("a.wav"), before=".", middle=".2", after=".x").name == ".a.2.wav.x"
    )
    long_suffix = "a." + "b" * 252
    assert beside(Path(long_suffix), after=".part").name.endswith(".part")
    assert bounded_name("short") == "short"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        ("two\nlines\tand\rmore", "two\\x0alines\\x09and\\x0dmore"),
        ("caf\udce9.wav", "caf\\xe9.wav"),
        ("csi \x9b2J", "csi \\x9b2J"),
        ("left\u202egpj", "left\\u202egpj"),
        ("half \ud800", "half \\ud800"),
        ("Zaunkönig 鶯.wav", "Zaunkönig 鶯.wav"),
        ("emoji 🐦\u200d", "emoji 🐦\u200d"),
    ],
)
def test_names_act_on_no_terminal_and_no_table(text, shown):
    assert plain_name(text) == shown
    plain(text).encode()


def test_sentences_keep_their_lines():
    assert plain("one\ntwo\x1b") == "one\ntwo\\x1b"


def test_lines_and_tabs_are_kept_where_they_belong():
    assert escaped("a\tb\x1b\r\n", kept="\t\r\n") == "a\tb\\x1b\r\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r@"])
def test_a_formula_gets_an_apostrophe(text):
    assert without_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=1", "'=1", "1-2", "song.wav", "_-"])
def test_other_texts_are_unchanged(text):
    assert without_formula(text) == text

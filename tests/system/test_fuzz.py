"""Damaged input to every parser: a sentence or a result, never anything else."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from repository import ROOT

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.journal import runs
from neurovocal.models.data.datasets import read_dataset

BENCH = ROOT / "bench" / "reliability"
sys.path.insert(0, str(BENCH))
import fuzz  # noqa: E402
import fuzz_parsers  # noqa: E402

sys.path.remove(str(BENCH))

# Per parser; `make fuzz` feeds a hundred thousand.
INPUTS = 40
PARSERS = fuzz.parsers()


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_damaged_input_is_taken_or_refused_in_a_sentence(name: str) -> None:
    parser = PARSERS[name]
    rng = np.random.default_rng([7, *name.encode()])
    for _ in range(INPUTS):
        data = fuzz.damaged(parser.good, rng)
        assert fuzz.feed(parser, data) is None, data[:300]


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_good_input_is_taken(name: str) -> None:
    parser = PARSERS[name]
    for data in parser.good:
        # Recipes of training are no configuration.
        is_recipe = b"front_end:" in data or b"datasets:" in data
        if name != "configuration" or not is_recipe:
            parser.take(data)


def test_a_parser_that_fails_is_found_out() -> None:
    def take(data: bytes) -> None:
        raise KeyError(data)

    finding = fuzz.feed(fuzz_parsers.Parser(take, [b"x"]), b"x")
    assert finding is not None
    assert finding.startswith("KeyError in system/test_fuzz.py")


def dataset(folder: Path, table: bytes) -> Path:
    soundfile.write(folder / "a.wav", np.zeros(8000), 8000)
    (folder / "annotations.csv").write_bytes(table)
    return folder


def test_a_table_that_is_no_utf8_says_how_to_save_it(tmp_path: Path) -> None:
    table = "file,onset_s,offset_s,label\na.wav,0.1,0.2,\xe9\n".encode("latin-1")
    with pytest.raises(
        ConfigError, match=r"line 2 is not UTF-8 text .*save the file in"
    ):
        read_dataset(dataset(tmp_path, table))


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    table = b"file,onset_s,offset_s,label\n" + b"x" * 5000 + b".wav,0.1,0.2,a\n"
    with pytest.raises(ConfigError, match=r"recording 'x{40}\.\.\.' does not exist"):
        read_dataset(dataset(tmp_path, table))


def test_a_run_without_a_name_is_damage(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "j.sqlite"
    path.write_bytes(fuzz_parsers.journals()[0])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET run = NULL")
    connection.close()
    with pytest.raises(ConfigError, match="a run has no name"):
        runs(path)

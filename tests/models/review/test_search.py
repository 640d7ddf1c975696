"""`neurovocal search`: sounds of journals and folders by words."""

import csv
import json

import numpy as np
import pytest
import soundfile
from bundles.audio_text import save_pair, tone
from stages.reviews import heard, write_journal
from typer.testing import CliRunner

from neurovocal.engine.cli.app import main
from neurovocal.models.review.search_command import search

RATE, WINDOW = 8000, 800
CONFIG = """\
# configuration: {folder}/my.yaml
version: 1
source: {{plugin: file, options: {{path: song.wav}}}}
sinks: [{{plugin: journal, options: {{path: run.sqlite}}}}]
"""


def song(path, *names, rate=RATE):
    """Write tones of 0.2 s with pauses of 0.2 s between them; return where they are."""
    pause = np.zeros(rate // 5, np.float32)
    parts, spans = [pause], []
    for number, name in enumerate(names):
        parts += [tone(name, WINDOW * rate // RATE, rate // 5), pause]
        spans.append((0.2 + 0.4 * number, 0.4 + 0.4 * number))
    soundfile.write(path, np.concatenate(parts), rate)
    return spans


def found(*args, code=0):
    import typer

    app = typer.Typer()
    app.command()(search)
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def pair(tmp_path):
    folder = tmp_path / "pair"
    folder.mkdir()
    return save_pair(folder)


@pytest.fixture
def journal(tmp_path):
    spans = song(tmp_path / "song.wav", "low", "high", "middle", rate=16000)
    units = ["a", "unknown", "unknown"]
    events = [
        event
        for number, ((onset, offset), unit) in enumerate(zip(spans, units, strict=True))
        for event in heard(number, onset, offset, unit, 0.9)
    ]
    return write_journal(
        tmp_path / "run.sqlite",
        CONFIG.format(folder=tmp_path),
        [("song.wav", event) for event in events],
    )


def test_sounds_of_a_journal_are_found_by_a_word(journal, pair):
    result = found("high tone", journal, "--model", pair, "--json")
    answer = json.loads(result.stdout)
    assert answer["heard"] == 3
    best = answer["found"][0]
    assert (best["text"], best["label"]) == ("high tone", "unknown")
    assert (best["onset_s"], best["offset_s"]) == (0.6, 0.8)
    assert best["similarity"] > 0.9 > answer["found"][1]["similarity"]


def test_several_texts_and_a_choice_of_labels(journal, pair):
    args = ("low tone", "middle tone", journal, "-m", pair, "--json")
    answer = json.loads(found(*args, "--label", "unknown", "--most", 1).stdout)
    assert answer["heard"] == 2
    assert [row["text"] for row in answer["found"]] == ["middle tone"]
    answer = json.loads(found(*args, "--least", 0.9).stdout)
    assert {row["text"] for row in answer["found"]} == {"low tone", "middle tone"}


def test_recordings_without_segments_are_heard_in_windows(tmp_path, pair):
    folder = tmp_path / "sounds"
    folder.mkdir()
    song(folder / "one.wav", "low", "low")
    song(folder / "two.wav", "middle")
    result = found("middle tone", folder, "-m", pair, "-n", 1)
    assert "two.wav" in result.stdout
    assert float(result.stdout.split()[0]) > 0.9


def test_a_table_is_written_once(journal, pair, tmp_path):
    out = tmp_path / "found.csv"
    found("high tone", journal, "-m", pair, "--out", out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["text"], rows[0]["onset_s"]) == ("high tone", "0.6")
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("dog",), "search needs a text and a place"),
        (("dog", "{tmp}/none"), "none' does not exist: name a journal, or a folder"),
        ((" ", "{tmp}"), "cannot be looked for"),
        (("dog", "{tmp}/song.wav"), "is no journal: name one, or a folder"),
        (("dog", "{tmp}", "--stream", "x"), "--stream is for journals"),
        (("dog", "{journal}", "--label", "zz"), "holds no sound labelled 'zz'"),
        (
            ("dog", "{journal}", "-o", "{tmp}/song.wav"),
            "song.wav' exists and is a recording",
        ),
        (("dog", "{journal}", "-o", "{tmp}/found.csv"), "exists already"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    journal, pair, tmp_path, capsys, args, expected
):
    header = "similarity,text,recording,onset_s,offset_s,label,utc\n"
    (tmp_path / "found.csv").write_text(header)
    given = [arg.format(tmp=tmp_path, journal=journal) for arg in args]
    before = (tmp_path / "song.wav").read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["search", *given, "--model", str(pair)])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert expected in told.replace("\n", " ")
    assert (tmp_path / "found.csv").read_text() == header
    assert (tmp_path / "song.wav").read_bytes() == before

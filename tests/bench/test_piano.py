"""Piano rolls: reading, training, resuming, and the table."""

import json
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from piano_model import joined_predictors
from piano_rolls import (
    NADE,
    RECIPES,
    ROWS,
    Recipe,
    Rolls,
    load_rolls,
    recipe_for,
    transposed,
)
from piano_training import PianoTask
from repository import ROOT

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.rnn_rbm.likelihood import (
    AnnealingOptions,
    conditional_rbms,
    log_likelihood,
)
from neurovocal.models.toolkit.loop import Budget, StopFlag, TrainingInterrupted, fit

DATA = Path(os.environ.get("NEUROVOCAL_DATA", ROOT.parent / "shared" / "data"))
REAL = DATA / "piano_rolls" / "piano_rolls.npz"
SMALL = Recipe(
    n_hidden=10,
    n_recurrent=20,
    static=40,
    predictor=30,
    conditional=30,
    joint=30,
    dropout=0.1,
    cd_steps=2,
    batch_size=6,
    sequence_length=20,
    warm_up=2,
    validate_every=15,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Small steps are slower on two threads, much slower where others compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def alternating(n_pieces, seed=0):
    """Two alternating chords: certain given the past, random without it."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(n_pieces):
        piece = np.zeros((rng.integers(20, 50), 88), np.float32)
        piece[0::2, [40, 44, 47]] = 1
        piece[1::2, [35, 42, 50]] = 1
        pieces.append(piece[rng.integers(2) :])
    return pieces


@pytest.fixture(scope="module")
def rolls():
    return Rolls(alternating(20, 0), alternating(4, 1), alternating(4, 2))


def trained(recipe, rolls, path, seed=0):
    task = PianoTask(recipe, rolls, seed)
    return task, fit(task, path, Budget(), StopFlag(), 1e9)


def save_packed(path, pieces, name="JSB_Chorales", splits=("train", "valid", "test")):
    bits = np.packbits(np.concatenate(pieces).astype(np.uint8), axis=1)
    lengths = np.array([len(p) for p in pieces], np.int32)
    arrays = {f"{name}_{s}_bits": bits for s in splits}
    np.savez(path, **arrays, **{f"{name}_{s}_lengths": lengths for s in splits})


def test_load_rolls_unpacks_the_pieces(tmp_path):
    pieces = alternating(3)
    save_packed(tmp_path / "rolls.npz", pieces)
    found = load_rolls(tmp_path / "rolls.npz", "JSB_Chorales")
    for part in (found.train, found.valid, found.test):
        assert [p.tolist() for p in part] == [p.tolist() for p in pieces]


def test_missing_damaged_and_incomplete_files_raise(tmp_path):
    with pytest.raises(ConfigError, match="are not there"):
        load_rolls(tmp_path / "none.npz", "JSB_Chorales")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rolls(tmp_path / "text.npz", "JSB_Chorales")
    save_packed(tmp_path / "part.npz", alternating(2), splits=("train",))
    with pytest.raises(ConfigError, match="no piano rolls of 'JSB_Chorales'"):
        load_rolls(tmp_path / "part.npz", "JSB_Chorales")


@pytest.mark.skipif(not REAL.is_file(), reason="the piano rolls are not there")
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("JSB_Chorales", (13807, 4602, 4725)),
        ("Nottingham", (176561, 45513, 44463)),
        ("Piano_midi", (75911, 8540, 19036)),
        ("MuseData", (245202, 82755, 64339)),
    ],
)
def test_real_sets_have_the_published_sizes(name, frames):
    rolls = load_rolls(REAL, name)
    found = tuple(sum(map(len, p)) for p in (rolls.train, rolls.valid, rolls.test))
    assert found == frames
    assert set(np.unique(rolls.test[0])) == {0, 1}


def test_transposed_roll_is_the_same_roll_at_another_place():
    roll = alternating(1)[0]
    for by in (-3, 0, 4):
        found = transposed(roll, by)
        assert found[:, [40 + by, 44 + by, 47 + by]].all(axis=1).any()
        assert np.array_equal(np.roll(found, -by, axis=1), roll)
    silence = np.zeros((3, 88), np.float32)
    assert np.array_equal(transposed(silence, 5), silence)


@pytest.mark.parametrize("by", [-40, 60])
def test_transposition_ends_at_the_keyboard_and_loses_no_note(by):
    roll = alternating(1)[0]
    found = transposed(roll, by)
    assert found[:, 0 if by < 0 else -1].any()
    shift = -35 if by < 0 else 87 - 50
    assert np.array_equal(np.roll(found, -shift, axis=1), roll)


def test_transposed_sequences_become_fewer_towards_the_end(rolls):
    recipe = replace(SMALL.first, keys=4, predictor=100, batch_size=50)
    task = PianoTask(recipe, rolls, 0)
    usual = np.concatenate(rolls.train).any(axis=0)
    shares = []
    for progress in (0.0, 0.5, 0.99):
        task.begin(progress)
        v, _ = task._batch()
        shares.append(float(v[..., ~usual].any(-1).any(0).float().mean()))
    # A transposed sequence leaves the notes of its set, except at 0 of 9 shifts.
    assert shares[0] > 0.7 > shares[1] > 0.2 > shares[2]


def test_rows_have_the_training_steps_of_their_model():
    for name in RECIPES:
        kinds = {r: [k for k, _ in recipe_for(name, r).phases] for r in ROWS}
        assert kinds["rbm"] == ["static"]
        assert kinds["rnn"] == ["predictor"]
        assert kinds["rtrbm"] == kinds["rnn_rbm"]
        assert kinds["rnn_rbm"][:2] == ["predictor", "conditional"]
        assert kinds["keys"] == kinds["rnn_rbm"]
        assert kinds["nade"] == ["predictor", "nade"]
        assert recipe_for(name, "rtrbm").gates == "simple"
        assert recipe_for(name, "keys").keys > 0 == recipe_for(name, "rnn_rbm").keys


def test_training_with_the_past_has_a_higher_likelihood(rolls, tmp_path):
    task, history = trained(replace(SMALL, joint=60), rolls, tmp_path / "a.pt")
    joint = history.rows[-1]
    alone, _ = trained(
        replace(SMALL, predictor=0, conditional=0, joint=0), rolls, tmp_path / "b.pt"
    )
    rng = np.random.Generator(np.random.SFC64(0))
    figures = []
    for model in (task.module.rbm, alone.module.rbm):
        rbms, frames, _ = conditional_rbms(model, rolls.test)
        bracket = log_likelihood(rbms, frames, AnnealingOptions(300, 2), rng).bracket
        figures.append(bracket)
    assert figures[0].low > figures[1].high + 0.3
    assert joint["accuracy"] > 0.6


def test_read_out_of_the_predictor_has_an_exact_likelihood(rolls, tmp_path):
    recipe = replace(SMALL, static=0, conditional=0, joint=0)
    task, _ = trained(recipe, rolls, tmp_path / "c.pt")
    entropy = task.module.cross_entropy(rolls.test)
    rbms, frames, _ = conditional_rbms(task.module.read_out(), rolls.test)
    found = log_likelihood(
        rbms, frames, AnnealingOptions(1, 1, 1), np.random.default_rng(0)
    )
    assert found.bracket.width == 0
    assert found.bracket.low == pytest.approx(-entropy, abs=1e-3)


def test_states_of_a_batch_equal_those_of_each_piece(rolls):
    model = PianoTask(SMALL, rolls, 0).module.eval()
    together = model.all_states(rolls.train)
    with torch.no_grad():
        alone = [model.states(torch.from_numpy(p)[:, None])[:, 0] for p in rolls.train]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_model_starts_with_the_likelihood_of_the_predictor(rolls, tmp_path):
    first = replace(SMALL, predictor=80).first
    task, history = trained(first, rolls, tmp_path / "first.pt")
    start = task.module.state_dict()
    rest = PianoTask(SMALL.rest, rolls, 0, start)
    rest.module.eval()
    with torch.no_grad():
        rest.module.rbm.W.zero_()
    rbms, frames, _ = conditional_rbms(rest.module.rbm, rolls.valid)
    found = log_likelihood(
        rbms, frames, AnnealingOptions(1, 1, 1), np.random.default_rng(0)
    )
    # Hidden units that see nothing leave the read-out's prediction as it is.
    assert found.bracket.low == pytest.approx(-history.best_score, abs=1e-3)


def test_nade_learns_what_independent_notes_cannot(tmp_path):
    """Two chords at random: the notes of each come together or not at all."""
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(12):
        piece, which = np.zeros((40, 88), np.float32), rng.integers(2, size=40) > 0
        piece[np.ix_(which, [40, 44, 47])] = 1
        piece[np.ix_(~which, [35, 42, 50])] = 1
        pieces.append(piece)
    rolls = Rolls(pieces[:8], pieces[8:10], pieces[10:])
    recipe = replace(SMALL, conditional=0, joint=0, static=0, nade=100, nade_rate=3e-2)
    first, _ = trained(recipe.first, rolls, tmp_path / "first.pt")
    start = first.module.state_dict()
    task = PianoTask(recipe.rest, rolls, 0, start)
    fit(task, tmp_path / "nade.pt", Budget(), StopFlag(), 1e9)
    likely = float(task.module.nade_likelihood(rolls.test).mean())
    # A coin is worth log 2 = 0.69 nat a frame, six independent ones 4.2.
    assert first.module.cross_entropy(rolls.test) > 3.5
    assert -1.2 < likely < -0.6


def test_joined_predictors_predict_their_mean(rolls):
    models = [PianoTask(SMALL.first, rolls, seed).module.eval() for seed in (0, 1)]
    recipe = replace(SMALL, predictors=2).rest
    start = joined_predictors([model.state_dict() for model in models])
    together = PianoTask(recipe, rolls, 0, start).module.eval()
    wanted = [model.head(model.all_states(rolls.valid)) for model in models]
    found = together.head(together.all_states(rolls.valid))
    assert not torch.allclose(wanted[0], wanted[1], atol=1e-2)
    assert torch.allclose(found, (wanted[0] + wanted[1]) / 2, atol=1e-5)


def test_interrupted_training_ends_with_the_same_weights(rolls, tmp_path):
    whole, _ = trained(SMALL, rolls, tmp_path / "whole.pt")
    task, stop = PianoTask(SMALL, rolls, 0), StopFlag()

    def after_50(share, history, loss):
        stop.raised = history.update >= 50

    with pytest.raises(TrainingInterrupted):
        fit(task, tmp_path / "cut.pt", Budget(), stop, 1e9, after_50)
    resumed, history = trained(SMALL, rolls, tmp_path / "cut.pt", seed=0)
    assert history.update == 130
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


def bench(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(
            str(ROOT / "bench" / "paper" / "polyphonic.py"), run_name="__main__"
        )
    assert ended.value.code == 0


def test_benchmark_computes_a_cell_once_and_prints_the_table(
    tmp_path, monkeypatch, capsys
):
    save_packed(tmp_path / "rolls.npz", alternating(6))
    monkeypatch.setitem(RECIPES, "JSB_Chorales", SMALL)
    small = {"nade": 10, "joint": 0, "predictors": 2}
    monkeypatch.setitem(NADE, "JSB_Chorales", small)
    cells = tmp_path / "cells"
    arguments = ["--data", tmp_path / "rolls.npz", "--out", cells]
    arguments += ["--sets", "JSB_Chorales", "--rows", "copy", "rnn", "nade"]
    stored = cells / "JSB_Chorales-rnn-0.json"
    tables = []
    for _ in range(2):
        bench(monkeypatch, *arguments)
        tables.append((capsys.readouterr().out, stored.stat().st_mtime_ns))
    assert tables[0] == tables[1]
    assert "| RNN, no RBM | 0 |" in tables[0][0]
    assert tables[0][0].count("(exact)") == 2
    cell = json.loads(stored.read_text())
    assert cell["test"]["low"] == cell["test"]["high"]
    assert cell["updates"] == cell["planned"] == SMALL.predictor
    # The choice among recipes has cells of its own, of the same training.
    checkpoints = sorted(cells.glob("*.pt"))
    bench(monkeypatch, *arguments, "--split", "valid")
    assert (cells / "valid" / stored.name).is_file()
    assert sorted(cells.glob("*.pt")) == checkpoints
    assert stored.stat().st_mtime_ns == tables[0][1]

"""The piano rolls of the RNN-RBM's paper, and the recipes that are trained on them.

N. Boulanger-Lewandowski, Y. Bengio, P. Vincent, "Modeling Temporal Dependencies in
High-Dimensional Sequences", ICML 2012.
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.types import Float32

N_NOTES = 88
ROWS = ("copy", "rbm", "rnn", "rtrbm", "rnn_rbm")
Step = Literal["static", "predictor", "joint"]


@dataclass(frozen=True, slots=True, eq=False)
class Rolls:
    """One set of pieces: float32[n_frames, 88] of 0 and 1 each."""

    train: list[Float32]
    valid: list[Float32]
    test: list[Float32]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes and steps of one cell of the table.

    Parameters
    ----------
    n_hidden, n_recurrent : int
    gates : {'sigmoid', 'simple'}
        Gated layer, or the paper's tanh cell.
    static, predictor, joint : int
        Optimizer steps of each kind; 0 leaves the kind out.
    dropout : float
        On the state.
    input_dropout : float
        Share of the notes that the recurrent layers do not hear in training.
    cd_steps : int
        k of CD-k.
    static_rate, predictor_rate, joint_rate, joint_rate_w : float
        First learning rates; the last is that of W.
    batch_size, sequence_length, warm_up : int
        Sequences per step, their frames, and how many of these do not count where
        a sequence begins in the middle of a piece.
    validate_every : int
        Steps between two looks at the validation set.
    """

    n_hidden: int = 150
    n_recurrent: int = 250
    gates: Literal["sigmoid", "simple"] = "sigmoid"
    static: int = 5000
    predictor: int = 400
    joint: int = 550
    dropout: float = 0.5
    input_dropout: float = 0.0
    cd_steps: int = 10
    static_rate: float = 3e-2
    predictor_rate: float = 3e-3
    joint_rate: float = 3e-3
    joint_rate_w: float = 1e-3
    batch_size: int = 10
    sequence_length: int = 100
    warm_up: int = 10
    validate_every: int = 100

    @property
    def phases(self) -> list[tuple[Step, int]]:
        """Kinds of steps in order, with their numbers."""
        every: list[tuple[Step, int]] = [
            ("static", self.static),
            ("predictor", self.predictor),
            ("joint", self.joint),
        ]
        return [(kind, n) for kind, n in every if n]


# Chosen on the validation sets; those of Piano_midi and MuseData are first guesses.
RECIPES = {
    "JSB_Chorales": Recipe(joint=1200),
    "Nottingham": Recipe(
        n_recurrent=300, predictor=1000, joint=2100, dropout=0.1, validate_every=300
    ),
    "Piano_midi": Recipe(predictor=800, joint=1500, dropout=0.4, validate_every=250),
    "MuseData": Recipe(predictor=2000, joint=3000, dropout=0.2, validate_every=500),
}


def recipe_for(name: str, row: str) -> Recipe:
    """The recipe of a cell of the table; the rows differ in what is left out."""
    recipe = RECIPES[name]
    match row:
        case "rbm":
            return replace(recipe, predictor=0, joint=0)
        case "rnn":
            return replace(recipe, static=0, joint=0)
        case "rtrbm":
            return replace(recipe, gates="simple", predictor_rate=1e-3, joint_rate=1e-3)
        case _:
            return recipe


def load_rolls(path: Path, name: str) -> Rolls:
    """Read one set of pieces.

    Parameters
    ----------
    path : Path
        ``piano_rolls.npz``: for each set and split the packed rolls
        ``NAME_SPLIT_bits`` and the pieces' ``NAME_SPLIT_lengths``.
    name : str
        JSB_Chorales, Nottingham, Piano_midi or MuseData.

    Raises
    ------
    ConfigError
        The file is missing or damaged, or has no such set.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Rolls(*(_split(arrays, name, s) for s in ("train", "valid", "test")))
    except FileNotFoundError as error:
        raise ConfigError(f"piano rolls '{path}' are not there") from error
    except KeyError as error:
        raise ConfigError(f"'{path}' has no piano rolls of '{name}'") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"piano rolls '{path}' cannot be read: {error}") from error


def _split(arrays: "np.lib.npyio.NpzFile", name: str, split: str) -> list[Float32]:
    bits = np.unpackbits(arrays[f"{name}_{split}_bits"], axis=1, count=N_NOTES)
    lengths = arrays[f"{name}_{split}_lengths"]
    if lengths.sum() != len(bits):
        raise ValueError(f"the lengths of '{name}' do not add up to its frames")
    return np.split(bits.astype(np.float32), np.cumsum(lengths)[:-1])

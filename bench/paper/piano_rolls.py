"""Piano rolls of the RNN-RBM's paper, and the recipes for them.

N. Boulanger-Lewandowski, Y. Bengio, P. Vincent, "Modeling Temporal Dependencies in
High-Dimensional Sequences", ICML 2012.
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32

N_NOTES = 88
ROWS = ("copy", "rbm", "rnn", "rtrbm", "rnn_rbm", "keys", "nade")
Step = Literal["static", "predictor", "conditional", "joint", "nade"]


@dataclass(frozen=True, slots=True, eq=False)
class Rolls:
    """One set of pieces, each float32[n_frames, 88] of 0 and 1."""

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
    static, predictor, conditional, joint, nade : int
        Optimizer steps of each kind; 0 leaves the kind out.
    predictors : int
        Recurrent layers that are trained alone, each from a seed of its own, and then
        stand side by side as one.
    keys : int
        Largest transposition of a sequence of the predictor's steps, in semitones up
        and down. The share of transposed sequences falls from 1 to 0 along the steps,
        because the pieces to predict are in one key.
    dropout : float
        On the state.
    input_dropout : float
        Share of the notes that are dropped from the input in training.
    cd_steps : int
        k of CD-k.
    conditional_cd : tuple of int
        k of CD-k in equal parts of the conditional steps.
    static_rate, predictor_rate, joint_rate, joint_rate_w : float
    conditional_rate, conditional_rate_w : float
        First learning rates; those with ``_w`` are W's.
    batch_size, sequence_length, warm_up : int
        Sequences per step, their frames, and how many of these do not count where
        a sequence begins in the middle of a piece.
    validate_every : int
        Steps between two validations.
    sharpness : float
        Factor on the visible biases, conditional part included, after training.
    """

    n_hidden: int = 150
    n_recurrent: int = 250
    gates: Literal["sigmoid", "simple"] = "sigmoid"
    static: int = 5000
    predictor: int = 400
    conditional: int = 4000
    joint: int = 0
    nade: int = 0
    predictors: int = 1
    keys: int = 0
    dropout: float = 0.5
    input_dropout: float = 0.0
    cd_steps: int = 10
    conditional_cd: tuple[int, ...] = (5, 10)
    static_rate: float = 3e-2
    predictor_rate: float = 3e-3
    conditional_rate: float = 3e-3
    conditional_rate_w: float = 1.5e-2
    joint_rate: float = 3e-3
    joint_rate_w: float = 1e-3
    nade_rate: float = 3e-3
    batch_size: int = 10
    sequence_length: int = 100
    warm_up: int = 10
    validate_every: int = 1000
    sharpness: float = 1.0

    @property
    def without_past(self) -> "Recipe":
        """Fields on which the static steps depend."""
        return Recipe(
            n_hidden=self.n_hidden,
            static=self.static,
            static_rate=self.static_rate,
            predictor=0,
            conditional=0,
            joint=0,
            validate_every=500,
        )

    @property
    def first(self) -> "Recipe":
        """Fields on which the predictor's steps depend; several cells share them."""
        return Recipe(
            n_hidden=self.n_hidden,
            n_recurrent=self.n_recurrent,
            gates=self.gates,
            static=0,
            predictor=self.predictor,
            conditional=0,
            joint=0,
            keys=self.keys,
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            predictor_rate=self.predictor_rate,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            warm_up=self.warm_up,
            validate_every=max(100, self.predictor // 8),
        )

    @property
    def rest(self) -> "Recipe":
        """Fields on which the steps after the predictor's depend."""
        together = self.n_recurrent * self.predictors
        return replace(self, predictor=0, n_recurrent=together, sharpness=1.0)

    @property
    def phases(self) -> list[tuple[Step, int]]:
        """Return the kinds of steps in order, with their numbers."""
        every: list[tuple[Step, int]] = [
            ("static", self.static),
            ("predictor", self.predictor),
            ("conditional", self.conditional),
            ("joint", self.joint),
            ("nade", self.nade),
        ]
        return [(kind, n) for kind, n in every if n]

    @property
    def planned(self) -> int:
        """Return the number of optimizer steps, those of all predictors included."""
        once = sum(n for _, n in self.phases)
        return once + (self.predictors - 1) * self.predictor


# Chosen on the validation sets; docs/research/polyphonic.md tells what is not clean
# about it.
RECIPES = {
    "JSB_Chorales": Recipe(sharpness=1.2),
    "Nottingham": Recipe(
        n_recurrent=256,
        predictor=3000,
        predictor_rate=4e-3,
        conditional=4500,
        conditional_rate_w=2.5e-2,
        conditional_cd=(5, 10, 15),
        dropout=0.25,
        sequence_length=64,
        validate_every=1500,
        sharpness=1.1,
    ),
    "Piano_midi": Recipe(
        n_recurrent=256,
        predictor=1000,
        conditional_rate_w=2e-2,
        dropout=0.5,
        sequence_length=64,
    ),
    "MuseData": Recipe(
        n_recurrent=256,
        predictor=2000,
        conditional=4500,
        conditional_rate_w=5e-2,
        conditional_cd=(5, 10, 20),
        dropout=0.3,
        sequence_length=64,
        validate_every=1500,
        sharpness=1.15,
    ),
}
# What the rows with transposed keys and with a NADE change.
KEYS: dict[str, dict[str, Any]] = {
    "JSB_Chorales": {"keys": 5, "predictor": 600, "dropout": 0.4},
    "Nottingham": {"keys": 5},
    "Piano_midi": {"keys": 5},
    "MuseData": {"keys": 5},
}
NADE: dict[str, dict[str, Any]] = {
    "JSB_Chorales": {"nade": 2000},
    "Nottingham": {"nade": 2000},
    "Piano_midi": {"nade": 2000},
    "MuseData": {"nade": 2000},
}


def recipe_for(name: str, row: str) -> Recipe:
    """Return the recipe of a cell; rows differ in the parts that are left out."""
    recipe = RECIPES[name]
    match row:
        case "rbm":
            return recipe.without_past
        case "rnn":
            return recipe.first
        case "rtrbm":
            simple = replace(recipe, gates="simple", predictor_rate=1e-3)
            return replace(simple, static=0, joint_rate=simple.joint_rate / 3)
        case "keys":
            return replace(recipe, static=0, **KEYS[name])
        case "nade":
            return replace(recipe, static=0, conditional=0, sharpness=1.0, **NADE[name])
        case _:
            return replace(recipe, static=0)


def transposed(roll: Float32, semitones: int) -> Float32:
    """Return a roll in another key, as far as its notes stay on the keyboard.

    Parameters
    ----------
    roll : float32[n_frames, 88]
    semitones : int
        Up, or down if negative; less of it where a note would leave the keyboard.
    """
    used = np.flatnonzero(roll.any(axis=0))
    if not len(used):
        return roll
    by = int(np.clip(semitones, -used[0], N_NOTES - 1 - used[-1]))
    return np.roll(roll, by, axis=1)


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

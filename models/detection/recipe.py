"""Recipe of a detector network, the file that `train --detector --config` reads."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from neurovocal.engine.config.located_yaml import read_located
from neurovocal.engine.config.validation import validation_problems
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.models.toolkit.recipe import CardConfig


class DatasetUse(Options):
    """What a dataset is used for."""

    use: Literal["calls", "background"] = "calls"
    """Its annotated segments are calls; or it has none, and is laid under calls."""
    only: dict[str, list[str]] = {}
    """Columns of files.csv, and the values of which a recording must have one."""
    ignore: list[str] = []
    """Labels that mean no call."""


class ScenesConfig(Options):
    """Recordings that the network is trained on, drawn once."""

    synthetic: int = Field(default=400, ge=1, le=100_000)
    """Synthetic calls over backgrounds."""
    recorded: int = Field(default=60, ge=0, le=100_000)
    """Parts of each dataset, at their own rate and at others, over backgrounds."""
    rows: int = Field(default=2000, ge=64, le=100_000)
    """Length in hops (of 2 ms, or 1 ms above 96 kHz)."""
    share_recorded: float = Field(default=0.6, ge=0, le=1)
    """Share of the training sequences that come from the datasets."""


class NetworkConfig(Options):
    """Sizes and training of the network."""

    n_hidden: int = Field(default=24, ge=1, le=1024)
    """Filters of the convolution, and units of the GRU."""
    kernel_length: int = Field(default=5, ge=1, le=100)
    """Rows that the convolution covers."""
    look_ahead: int = Field(default=2, ge=0, le=100)
    """Rows that a correction waits for."""
    updates: int = Field(default=800, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=40, ge=1)
    """Sequences per step."""
    sequence_length: int = Field(default=250, ge=2)
    """Rows per sequence."""
    warm_up: int = Field(default=15, ge=0)
    """First rows of a sequence that do not count, unless a recording begins there."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Learning rate at the first step; it falls to 1 % along a half cosine."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """Weight decay of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    edge_weight: float = Field(default=2.0, gt=0)
    """Weight of the rows next to an onset or offset; others have 1."""
    correction_weight: float = Field(default=0.005, ge=0)
    """Weight of the mean square of the corrections in dB, beside the cross entropy:
    the larger it is, the closer the detector stays to `bands`."""
    noise_db: float = Field(default=0.6, ge=0)
    """Standard deviation of each band's level from one sequence to another."""
    validate_every: int = Field(default=100, ge=1)
    """Updates between two validations."""


class DetectorRecipe(Options):
    """Recipe of a detector network."""

    version: Literal[1] = 1
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers; the same seed gives the same bundle."""
    threads: int = Field(default=1, ge=1)
    """CPU threads; a different number may change the last digits of results."""
    checkpoint_s: float = Field(default=15.0, gt=0)
    """Seconds between two checkpoints."""
    valid_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the recordings of each dataset that chooses the weights; a dataset with
    a single recording has none."""
    datasets: dict[str, DatasetUse] = {}
    """By the name of a dataset's folder. One that is not named here has calls if it has
    annotations, and backgrounds if not."""
    scenes: ScenesConfig = ScenesConfig()
    network: NetworkConfig = NetworkConfig()
    card: CardConfig = CardConfig()


def load_recipe(path: Path | None) -> DetectorRecipe:
    """Read a recipe, or return the default recipe if `path` is None.

    Raises
    ------
    ConfigError
        The recipe is invalid; lists all mistakes with file and line.
    """
    if path is None:
        return DetectorRecipe()
    located = read_located(path, noun="recipe")
    try:
        return DetectorRecipe.model_validate(located.data)
    except ValidationError as error:
        problems = validation_problems(error, DetectorRecipe, located)
        raise ConfigError(problems) from error

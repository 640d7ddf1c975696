"""Training configuration (recipe), validated before a training starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from neurovocal.engine.config.located_yaml import Located, read_located
from neurovocal.engine.config.validation import validation_problems
from neurovocal.engine.contracts.bundle import Installed
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import Kind
from neurovocal.engine.contracts.registry import Registry


class FrontEndConfig(Options):
    """Features of the frames and their scaling."""

    plugin: Installed = "spectrogram"
    """Features plugin that computes the frames."""
    sample_rate: int | None = Field(default=None, gt=0)
    """Sample rate in Hz; None takes the most common rate of the recordings."""
    options: dict[str, Any] = {
        "frame_length": 256,
        "hop_length": 128,
        "window": "hann",
        "scale": "log",
    }
    """Options of the features plugin, without its scaling."""
    scaling: Literal["band"] = "band"
    """`band`: the `low` to `high` percentiles of each bin are scaled to 0..1."""
    low: float = Field(default=2.0, ge=0, le=100)
    """Percentile of the training frames that is scaled to 0."""
    high: float = Field(default=99.8, ge=0, le=100)
    """Percentile of the training frames that is scaled to 1."""

    @model_validator(mode="after")
    def _ordered(self) -> "FrontEndConfig":
        if self.low >= self.high:
            raise ValueError("'low' must be below 'high'")
        return self


class SplitConfig(Options):
    """Assignment of recordings to training, validation and test."""

    only: dict[str, list[str]] = {}
    """Columns of files.csv and the values that a recording must have there; other
    recordings are not used."""
    column: str | None = None
    """Column of files.csv that names the split of a recording; None uses the column
    `split` if there is one, and otherwise splits the recordings at random."""
    test: list[str] = []
    """Values of `column` that mean the test split; empty: `test`, or `valid` if no
    recording has the value `test`."""
    valid: list[str] = []
    """Values of `column` that mean the validation split; empty: a share of the other
    recordings."""
    valid_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the training recordings, by duration, that chooses the weights of
    RNN-RBM and forecast; with `folds: 1` those of the classifier, too."""
    draw_test: bool = False
    """Draw a test split at random where no column names one (`--test`). Without one
    all recordings train, and the figures are those of the cross-validation."""
    test_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of all recordings that `draw_test` draws."""
    folds: int = Field(default=4, ge=1, le=20)
    """Parts of the recordings that a cross-validation leaves out in turn; 1: only the
    validation recordings are left out, once. Where files.csv has days, a part is whole
    days, and there are at most as many parts as days."""
    day: str | None = None
    """Column of files.csv whose values are days; None takes one whose name begins with
    `day`, `date` or `session`; empty: none."""
    min_recordings: int = Field(default=6, ge=3)
    """Fewer recordings are cut in silences, into this many parts."""


OTHER = "other"
UNKNOWN = "unknown"


class UnitsConfig(Options):
    """Treatment of labels with few examples."""

    min_examples: int = Field(default=5, ge=1)
    """A unit with fewer examples in the training split is rare."""
    rare: Literal["ignore", "merge", "keep"] = "ignore"
    """Rare units are left out of training and measures (`ignore`), merged into one
    unit `other` (`merge`), or kept (`keep`)."""
    silence: str = ""
    """Label that means 'no vocalization'."""

    @field_validator("silence")
    @classmethod
    def _no_other_meaning(cls, silence: str) -> str:
        if silence in (OTHER, UNKNOWN):
            raise ValueError(f"'{silence}' has another meaning: name another label")
        return silence


class AugmentConfig(Options):
    """Augmentation of training frames, for other days and microphones."""

    level_db: float = Field(default=3.0, ge=0)
    """Standard deviation of the level change of a sequence."""
    tilt_db: float = Field(default=1.5, ge=0)
    """Standard deviation of a level change that is linear from the lowest bin to the
    highest."""
    floor: float = Field(default=0.25, ge=0, le=1)
    """Share of the sequences with a raised noise floor."""
    floor_db: float = Field(default=10.0, ge=0)
    """Highest rise of the noise floor."""
    noise: float = Field(default=0.03, ge=0)
    """Standard deviation of the noise added to every scaled value."""


class ClassifierConfig(Options):
    """Architecture and training of the frame-wise classifier."""

    architecture: Literal["gru", "lstm", "tcn", "conv_gru"] = "gru"
    """Causal network; each keeps its state in explicit tensors."""
    n_hidden: int = Field(default=96, gt=0)
    """Recurrent units, or channels of the TCN."""
    n_layers: int = Field(default=1, ge=1, le=8)
    """Recurrent layers, or residual blocks of the TCN (dilation 2**i)."""
    kernel_length: int = Field(default=5, ge=2)
    """Frames under a convolution of `tcn` and `conv_gru`."""
    dropout: float = Field(default=0.25, ge=0, lt=1)
    """Dropout between layers and before the read-out."""
    objective: Literal["frames", "last"] = "frames"
    """`frames`: the loss covers every frame; `last`: only the last frame of each
    segment and silence, as in sequence classification with last-step output. With
    `last` the engine also labels a segment by its last frame."""
    updates: int = Field(default=900, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=12, ge=1)
    """Sequences per step."""
    sequence_length: int = Field(default=250, ge=2)
    """Frames per sequence."""
    warm_up: int = Field(default=12, ge=0)
    """Frames at the start of a sequence that the loss leaves out if the sequence
    starts within a recording, while the state warms up."""
    pause_frames: int = Field(default=40, ge=0)
    """Longest silence, in frames, between short recordings that share a sequence."""
    used_states: float = Field(default=0.5, ge=0, le=1)
    """Share of the sequences that start with the final state of another sequence, as
    in the middle of a stream, instead of zeros."""
    optimizer: Literal["adamw", "adam", "rmsprop"] = "adamw"
    """Optimizer."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Learning rate at the first step."""
    decay: Literal["cosine", "constant"] = "cosine"
    """Schedule of the learning rate: `cosine` falls to 1 % along a half cosine."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of `adamw`."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    label_smoothing: float = Field(default=0.02, ge=0, lt=1)
    """Share of the target probability that is spread over all units."""
    edge_weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of the frames within `edge_frames` of an onset or offset, where
    annotations are uncertain."""
    edge_frames: int = Field(default=1, ge=0)
    """Number of edge frames on each side of a boundary."""
    validate_every: int = Field(default=100, ge=1)
    """Updates between two validations."""
    patience: int | None = Field(default=None, ge=1)
    """Validations without improvement, on the recordings that are left out, after which
    a training of the cross-validation ends; the classifier is trained for the median of
    their best numbers of updates. None: all updates, always."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of the training sequences."""
    unknown_cost: float = Field(default=2.0, ge=1, le=1e6)
    """What a wrong name costs against no name. The thresholds of `unknown` have the
    least cost on recordings that were left out. At 2 a right name that is lost costs as
    much as a wrong one that is avoided saves; at 1 only sounds that are no vocalization
    are worth an `unknown`."""
    unknown_margin: float = Field(default=10.0, ge=1)
    """Odds of a label are this many times lower than any that was right before they
    mean `unknown` where no wrong label is known to be avoided."""
    unknown_cap: float = Field(default=0.95, gt=0, lt=1)
    """Upper limit of the posterior thresholds below which a label is `unknown`."""
    duration_margin: float = Field(default=1.5, ge=1)
    """Least margin of the duration: a segment is `unknown` if it is this many times
    shorter or longer than 96 % of the annotated segments of its unit. It is widened
    where that costs less."""
    agreement_margin: float = Field(default=6.0, ge=1)
    """Least margin of the agreement: a segment is `unknown` if the mean log-posterior
    of its unit is this many times further below 0 than in 98 % of the annotated
    segments of that unit. It is widened where that costs less."""
    provisional_ms: float = Field(default=20.0, ge=0)
    """Delay after the onset at which the first provisional label is published."""
    early_posterior: float = Field(default=0.5, ge=0, lt=1)
    """Posterior below which a label before the offset is `unknown`, for all units.

    At 0.5 a label is given if it is more likely correct than wrong."""
    early_wrong: float = Field(default=0.01, gt=0, lt=1)
    """Share of the vocalizations whose first name may be wrong in the profile `fast`.
    The score at which it names each unit is the lowest that keeps to it, on recordings
    that were left out."""


_FITTED_DETECTORS = ("energy", "excess", "bands")


class DetectorConfig(Options):
    """Recommended detector of the bundle and its options."""

    fit: bool = True
    """Fit the options of detectors to the annotation and final labels of training
    recordings, and choose one by validation recordings; otherwise the bundle recommends
    `options`."""
    plugin: Installed = "energy"
    """Recommended detector; with `fit` the one that is kept unless another is clearly
    better: `energy`, `excess` or `bands`."""
    others: bool = True
    """Fit the other ones of these three, too."""
    options: dict[str, Any] = {}
    """Options at which the search of `plugin` starts."""
    limit_s: float = Field(default=180.0, gt=0)
    """Seconds of training recordings that the search uses; the choice uses half as
    many of validation recordings."""

    @model_validator(mode="after")
    def _can_be_fitted(self) -> "DetectorConfig":
        if self.fit and self.plugin not in _FITTED_DETECTORS:
            raise ValueError(f"'{self.plugin}' cannot be fitted: set fit to false")
        if self.fit and self.plugin == "excess" and self.options:
            raise ValueError(
                "all options of 'excess' come from the recordings: leave options out, "
                "or set fit to false"
            )
        return self


class Phase(Options):
    """A phase of the RNN-RBM training."""

    objective: Literal["static", "deterministic", "contrastive"]
    """`static`: RBM alone (state 0); `deterministic`: recurrent part alone (W = 0),
    with an exact likelihood; `contrastive`: all parameters, by CD-k."""
    updates: int = Field(ge=1)
    """Optimizer steps."""
    learning_rate: float = Field(gt=0)
    """Learning rate of all parameters except W."""
    learning_rate_w: float | None = Field(default=None, gt=0)
    """Learning rate of W; None: `learning_rate`."""
    decay: Literal["cosine", "constant"] = "constant"
    """Schedule of the learning rates over the phase."""


class RnnRbmConfig(Options):
    """Architecture and training of the RNN-RBM."""

    visible: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Type of the visible units."""
    gates: Literal["sigmoid", "tanh", "simple"] = "sigmoid"
    """Gates of the recurrent layers; `simple` is the paper's tanh cell."""
    n_layers: int = Field(default=1, ge=1, le=3)
    """Recurrent layers; the last layer conditions the RBM."""
    hidden_scalar: float = Field(default=1.7, gt=0)
    """Hidden units per visible unit."""
    recurrent_scalar: float = Field(default=1.3, gt=0)
    """Recurrent units per visible unit."""
    visible_sampling: Literal["mean_field", "sampled"] = "mean_field"
    """Reconstruction of the visible units in the negative phase."""
    cd_steps: int = Field(default=3, ge=1)
    """Gibbs steps of the negative phase, k of CD-k."""
    negative: Literal["cd", "pcd"] = "cd"
    """Start of the chains of the negative phase: the data (`cd`), or the last state of
    the persistent chain of the same frame (`pcd`)."""
    persistent_frames: int = Field(default=50_000, ge=1)
    """Largest number of chains that `pcd` stores."""
    persistent_updates: int = Field(default=200, ge=0)
    """Updates after which a stored chain of `pcd` is too old and restarts at the
    data."""
    gibbs_steps: int = Field(default=20, ge=0)
    """Gibbs steps per frame of synthesis."""
    residual_components: int = Field(default=16, ge=1, le=64)
    """Components of the mixture of prediction errors that is fed back as noise in
    synthesis; 1: one covariance for all frames."""
    residual_level: float = Field(default=0.65, gt=0)
    """Level of that noise relative to the errors. A lower level makes clearer
    synthesis, a much lower one makes it periodic."""
    prediction_steps: int = Field(default=3, ge=0)
    """Mean-field iterations of the one-step prediction."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the state that conditions the biases."""
    feedback_noise: float = Field(default=0.0, ge=0)
    """Largest level of the noise on the input frames of the recurrent part in
    training, relative to the model's prediction errors; the level is drawn for each
    sequence. It prepares the model for its own generated frames as input."""
    batch_size: int = Field(default=12, ge=1)
    """Sequences per step."""
    sequence_length: int = Field(default=64, ge=2)
    """Frames per sequence that the loss covers."""
    warm_up: int = Field(default=16, ge=0)
    """Frames before them that only warm up the state."""
    trim_silence_s: float | None = Field(default=0.1, ge=0)
    """Silence that is kept before the first and after the last segment of a recording,
    in seconds; None keeps all."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Optimizer; `rmsprop` has decay 0.9 and epsilon 1e-6 inside the root."""
    non_finite: Literal["skip", "shrink"] = "skip"
    """Treatment of a non-finite gradient: `skip` skips the step, `shrink` replaces the
    non-finite values by a tenth of the parameter."""
    l1: float = Field(default=0.0, ge=0)
    """Weight of the sum of absolute weights."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of the sum of squared weights."""
    smoothness: float = Field(default=0.0, ge=0)
    """Weight s of the penalty on changes of the conditional visible biases from frame
    to frame: ``s * mean_t sum_i (bv_t[i] - bv_(t-1)[i])**2``; not in phase `static`."""
    clip: float | None = Field(default=5.0, gt=0)
    """Largest norm of the gradient; None: no limit."""
    phases: list[Phase] = [
        Phase(
            objective="deterministic",
            updates=600,
            learning_rate=2e-3,
            decay="cosine",
        ),
        Phase(
            objective="contrastive",
            updates=500,
            learning_rate=5e-4,
            learning_rate_w=1e-3,
            decay="cosine",
        ),
    ]
    """Phases of the training, in order."""
    validate_every: int = Field(default=100, ge=1)
    """Updates between two validations."""


class ForecastConfig(Options):
    """RNN-RBM over units, which predicts the next unit (docs/research/prior.md)."""

    n_recurrent: int = Field(default=32, gt=0)
    """Recurrent units."""
    n_hidden: int = Field(default=32, gt=0)
    """Hidden units of the RBM."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout of the state that conditions the biases."""
    forgotten: float = Field(default=0.05, ge=0, lt=1)
    """Share of the input units that training hides, as if they were `unknown`."""
    pause_ms: float = Field(default=500.0, gt=0)
    """Silence that ends a phrase; the state is reset after it."""
    gap_bins: int = Field(default=8, ge=1)
    """Number of bins of the silence before a unit."""
    updates: int = Field(default=300, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=16, ge=1)
    """Phrases per step."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """Learning rate at the first step; it falls to 1 % along a half cosine."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Weight decay of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    validate_every: int = Field(default=25, ge=1)
    """Updates between two validations."""


class CardConfig(Options):
    """Descriptive fields of the bundle's manifest and card.

    Empty fields are filled from the dataset's README.md: from its lines
    `Licence: ...` and `Attribution: ...`, and its first paragraph.
    """

    name: str = ""
    """Name of the bundle; empty: the name of its folder."""
    species: str = ""
    """Species, or the speaker, or the instrument."""
    licence: str = ""
    """Licence of the bundle, which follows from that of the training data."""
    attribution: str = ""
    """Names to credit when the bundle is used."""
    description: str = ""
    """Paragraph for the bundle's card."""


class TrainConfig(Options):
    """Recipe, the file that `neurovocal train --config` reads."""

    version: Literal[1] = 1
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers; the same seed gives the same bundle."""
    threads: int = Field(default=1, ge=1)
    """CPU threads; a different number may change the last digits of results."""
    checkpoint_s: float = Field(default=15.0, gt=0)
    """Seconds between two checkpoints."""
    front_end: FrontEndConfig = FrontEndConfig()
    split: SplitConfig = SplitConfig()
    units: UnitsConfig = UnitsConfig()
    classifier: ClassifierConfig | None = ClassifierConfig()
    """None trains no classifier."""
    detector: DetectorConfig = DetectorConfig()
    rnn_rbm: RnnRbmConfig | None = RnnRbmConfig()
    """None trains no RNN-RBM."""
    forecast: ForecastConfig | None = ForecastConfig()
    """None trains no forecast; it needs a classifier."""
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _trains_a_network(self) -> "TrainConfig":
        if self.classifier is None and self.rnn_rbm is None:
            raise ValueError("one of 'classifier' and 'rnn_rbm' must be trained")
        return self


# Many small steps learn more in a minute than few large ones.
_QUICK_CLASSIFIER = {
    "updates": 400,
    "sequence_length": 64,
    "warm_up": 6,
    "learning_rate": 5e-3,
    "used_states": 0.8,
    "validate_every": 200,
}


def adapted(
    recipe: TrainConfig,
    replaced: Mapping[str, Any],
    quick: bool = False,
    test: bool = False,
    unknown_cost: float | None = None,
) -> TrainConfig:
    """Return a recipe with the options of the command line.

    Parameters
    ----------
    recipe : TrainConfig
    replaced : mapping
        Values of its own options; None leaves one as it is.
    quick : bool
        Take fewer updates and folds, the recipe's detector alone, no RNN-RBM and no
        forecast.
    test : bool
        Draw a test split where none is named.
    unknown_cost : float, optional
        In place of that of the classifier.

    Raises
    ------
    ConfigError
        The recipe trains no classifier, which `quick` and `unknown_cost` are of.
    """
    if recipe.classifier is None:
        given = {"--quick": quick, "--unknown-cost": unknown_cost is not None}
        if named := [option for option, is_given in given.items() if is_given]:
            raise ConfigError(
                f"{' and '.join(named)}: the recipe trains no classifier (classifier: "
                "null): leave it out, or take another recipe"
            )
    changes = {name: value for name, value in replaced.items() if value is not None}
    split, classifier = recipe.split, recipe.classifier
    if test:
        split = split.model_copy(update={"draw_test": True})
    if quick:
        split = split.model_copy(update={"folds": min(2, split.folds)})
        changes |= {"rnn_rbm": None, "forecast": None}
        detector = {"others": False, "limit_s": min(60.0, recipe.detector.limit_s)}
        changes["detector"] = recipe.detector.model_copy(update=detector)
    own = dict[str, Any](_QUICK_CLASSIFIER) if quick else {}
    if unknown_cost is not None:
        own["unknown_cost"] = unknown_cost
    if classifier is not None:
        classifier = classifier.model_copy(update=own)
    return recipe.model_copy(
        update={**changes, "split": split, "classifier": classifier}
    )


def load_config(path: Path | None) -> TrainConfig:
    """Read a recipe, or return the default recipe if `path` is None.

    Raises
    ------
    ConfigError
        The recipe is invalid; lists all mistakes with file and line.
    """
    if path is None:
        return TrainConfig()
    located = read_located(path, noun="recipe")
    problems = _option_problems(located)
    try:
        config = TrainConfig.model_validate(located.data)
    except ValidationError as error:
        problems = [*validation_problems(error, TrainConfig, located), *problems]
        raise ConfigError(problems) from error
    if problems:
        raise ConfigError(problems)
    return config


def _option_problems(located: Located) -> list[str]:
    """Return the mistakes in the options of the plugins that a recipe names."""
    problems: list[str] = []
    forms: list[tuple[str, Kind, type[FrontEndConfig | DetectorConfig]]] = [
        ("front_end", "features", FrontEndConfig),
        ("detector", "detector", DetectorConfig),
    ]
    for key, kind, form in forms:
        part = located.data.get(key) if isinstance(located.data, dict) else None
        if part is None:
            continue
        try:
            stage = form.model_validate(part)
            plugin = Registry().get(kind, stage.plugin)
        except ValidationError:  # told with the rest of the recipe
            continue
        except ConfigError as error:
            problems.append(located.problem((key, "plugin"), str(error)))
            continue
        try:
            plugin.options.model_validate(stage.options)
        except ValidationError as error:
            where = (key, "options")
            problems += validation_problems(error, plugin.options, located, where)
    return problems

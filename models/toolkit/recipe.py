"""The training configuration: every choice of a recipe, checked before it starts."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from neurovocal.engine.config.located_yaml import read_located
from neurovocal.engine.config.validation import explain
from neurovocal.engine.contracts.bundle import Installed
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options


class FrontEndConfig(Options):
    """How samples become frames."""

    plugin: Installed = "spectrogram"
    """Features plugin that computes the frames."""
    sample_rate: int | None = Field(default=None, gt=0)
    """Hz; None takes the most common rate of the recordings."""
    options: dict[str, Any] = {
        "frame_length": 256,
        "hop_length": 128,
        "window": "hann",
        "scale": "log",
    }
    """Options of the features plugin, without its scaling."""
    scaling: Literal["band"] = "band"
    """`band`: per bin, `low` to `high` percentile of the training frames -> 0..1."""
    low: float = Field(default=2.0, ge=0, le=100)
    """Percentile of the training frames that becomes 0."""
    high: float = Field(default=99.8, ge=0, le=100)
    """Percentile of the training frames that becomes 1."""

    @model_validator(mode="after")
    def _ordered(self) -> "FrontEndConfig":
        if self.low >= self.high:
            raise ValueError("'low' must be below 'high'")
        return self


class SplitConfig(Options):
    """Which recordings are trained on, choose the model, and test it."""

    only: dict[str, list[str]] = {}
    """Columns of files.csv and the values that a recording must have there; others
    are left out altogether."""
    column: str | None = None
    """Column of files.csv that says where a recording belongs; None looks for
    `split`, and then splits at random by recording."""
    test: list[str] = []
    """Values of `column` that mean the test split; empty: `test`, or `valid` where
    no recording is named `test`."""
    valid: list[str] = []
    """Values of `column` that mean validation; empty: a share of the rest."""
    valid_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the training recordings, by duration, that validates."""
    test_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of all recordings that tests where no column says so."""
    min_recordings: int = Field(default=6, ge=3)
    """With fewer recordings, recordings are cut in silences into this many parts."""


class UnitsConfig(Options):
    """What happens to labels with few examples."""

    min_examples: int = Field(default=5, ge=1)
    """A unit with fewer examples in the training split is rare."""
    rare: Literal["ignore", "merge", "keep"] = "ignore"
    """Rare units are left out of training and measures, merged into one unit
    `other`, or kept as they are."""
    silence: str = ""
    """Name of the unit that means 'no vocalization'."""


class AugmentConfig(Options):
    """Noise that makes a classifier hold on other days and microphones."""

    level_db: float = Field(default=3.0, ge=0)
    """Standard deviation of a sequence's change of level."""
    tilt_db: float = Field(default=1.5, ge=0)
    """Standard deviation of a linear change of level from the lowest bin to the
    highest."""
    floor: float = Field(default=0.25, ge=0, le=1)
    """Share of the sequences whose noise floor is raised."""
    floor_db: float = Field(default=10.0, ge=0)
    """Highest rise of the noise floor."""
    noise: float = Field(default=0.03, ge=0)
    """Standard deviation of the noise on every scaled value."""


class ClassifierConfig(Options):
    """Architecture and training of the frame-wise classifier."""

    architecture: Literal["gru", "lstm", "tcn", "conv_gru"] = "gru"
    """Causal network; all of them keep their state in explicit tensors."""
    n_hidden: int = Field(default=96, gt=0)
    """Recurrent units, or channels of the TCN."""
    n_layers: int = Field(default=1, ge=1, le=8)
    """Recurrent layers, or residual blocks of the TCN (dilation 2**i)."""
    kernel_length: int = Field(default=5, ge=2)
    """Frames under a convolution of `tcn` and `conv_gru`."""
    dropout: float = Field(default=0.25, ge=0, lt=1)
    """On the network's input to the last layer."""
    objective: Literal["frames", "last"] = "frames"
    """`frames`: every frame counts; `last`: only the last frame of each segment,
    as in sequence classification with last-step output (silence stays framewise);
    the engine then takes a segment's label from its last frame, too."""
    updates: int = Field(default=900, ge=1)
    """Steps of the optimizer."""
    batch_size: int = Field(default=12, ge=1)
    """Sequences per step."""
    sequence_length: int = Field(default=250, ge=2)
    """Frames per sequence."""
    warm_up: int = Field(default=12, ge=0)
    """First frames of a sequence that do not count where it begins within a
    recording: the state is still cold."""
    pause_frames: int = Field(default=40, ge=0)
    """Longest silence between recordings that are shorter than a sequence and
    share one."""
    used_states: float = Field(default=0.5, ge=0, le=1)
    """Share of the sequences that begin with the state after another sequence, as
    in the middle of a stream, and not with zeros."""
    optimizer: Literal["adamw", "adam", "rmsprop"] = "adamw"
    """Rule of the steps."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """First learning rate."""
    decay: Literal["cosine", "constant"] = "cosine"
    """How it changes: to 1 % along a half cosine, or not at all."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of adamw."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    label_smoothing: float = Field(default=0.02, ge=0, lt=1)
    """Share of the target that is spread over all units."""
    edge_weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of the frames within `edge_frames` of an onset or offset, where the
    annotation itself is uncertain."""
    edge_frames: int = Field(default=1, ge=0)
    """How many frames on each side of a boundary are edge frames."""
    validate_every: int = Field(default=100, ge=1)
    """Updates between two looks at the validation split."""
    patience: int = Field(default=5, ge=1)
    """Looks without improvement that end the training."""
    augment: AugmentConfig = AugmentConfig()
    """Noise on the training sequences."""
    unknown_margin: float = Field(default=10.0, ge=1)
    """A segment is `unknown` when the odds of its label are this many times lower
    than the lowest odds of a right label of that unit on validation data."""
    unknown_cap: float = Field(default=0.95, gt=0, lt=1)
    """Highest posterior that may be asked of a label: one that is calibrated to be
    right so often is not to be refused."""
    duration_margin: float = Field(default=1.5, ge=1)
    """A segment is `unknown` when it is this many times shorter or longer than
    nearly all annotated segments of its unit."""
    agreement_margin: float = Field(default=6.0, ge=1)
    """A segment is `unknown` when the mean log-posterior of its unit is this many
    times further below 0 than in nearly all annotated segments of that unit."""
    provisional_ms: float = Field(default=20.0, ge=0)
    """Delay after onset at which the first provisional label is given."""
    early_posterior: float = Field(default=0.5, ge=0, lt=1)
    """Posterior below which a label before the offset is `unknown`, whatever its
    unit: it is named when it is likelier right than wrong."""


class DetectorConfig(Options):
    """Detector options that the bundle recommends."""

    fit: bool = True
    """Choose options of the `energy` detector by how well the final labels of
    training and validation recordings agree with the annotation; otherwise the
    bundle recommends `options` as they are."""
    plugin: Installed = "energy"
    """Detector that is recommended; only `energy` can be fitted."""
    options: dict[str, Any] = {}
    """Options where the search begins."""
    limit_s: float = Field(default=180.0, gt=0)
    """Seconds of recordings that the search listens to."""

    @model_validator(mode="after")
    def _fits(self) -> "DetectorConfig":
        if self.fit and self.plugin != "energy":
            raise ValueError(f"'{self.plugin}' cannot be fitted: set fit to false")
        return self


class Phase(Options):
    """A stretch of the RNN-RBM training."""

    objective: Literal["static", "deterministic", "contrastive"]
    """`static`: RBM alone (state 0); `deterministic`: recurrent part alone (W = 0),
    where the likelihood is exact; `contrastive`: all, by CD-k."""
    updates: int = Field(ge=1)
    """Steps of the optimizer."""
    learning_rate: float = Field(gt=0)
    """Of all parameters but W."""
    learning_rate_w: float | None = Field(default=None, gt=0)
    """Of W; None: as the others."""
    decay: Literal["cosine", "constant"] = "constant"
    """How the rates change over the phase."""


class RnnRbmConfig(Options):
    """Architecture and training of the RNN-RBM."""

    visible: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Units of the visible layer."""
    gates: Literal["sigmoid", "tanh", "simple"] = "sigmoid"
    """Gates of the recurrent layers; `simple` is the paper's tanh cell."""
    n_layers: int = Field(default=1, ge=1, le=3)
    """Recurrent layers; the last one conditions the RBM."""
    hidden_scalar: float = Field(default=1.7, gt=0)
    """Hidden units per visible unit."""
    recurrent_scalar: float = Field(default=1.3, gt=0)
    """Recurrent units per visible unit."""
    visible_sampling: Literal["mean_field", "sampled"] = "mean_field"
    """How the visible units of the negative phase are reconstructed."""
    cd_steps: int = Field(default=3, ge=1)
    """k of CD-k."""
    negative: Literal["cd", "pcd"] = "cd"
    """Where the chains of the negative phase begin: at the data (`cd`), or where the
    chain of the same frame was left when it was last drawn (`pcd`)."""
    persistent_frames: int = Field(default=50_000, ge=1)
    """Chains that `pcd` keeps at most."""
    persistent_updates: int = Field(default=200, ge=0)
    """Updates after which a chain of `pcd` begins anew at the data: what was left for
    longer belongs to other weights."""
    gibbs_steps: int = Field(default=20, ge=0)
    """Gibbs steps per frame of synthesis."""
    residual_components: int = Field(default=16, ge=1, le=64)
    """Kinds of errors that the state chooses from when their noise is fed back; 1:
    one covariance for all frames."""
    residual_level: float = Field(default=0.65, gt=0)
    """Strength of that noise, 1 being as strong as the errors; less sings more
    clearly, far less sings in a circle."""
    prediction_steps: int = Field(default=3, ge=0)
    """Mean-field iterations of the one-step prediction."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """On the state that conditions the biases."""
    feedback_noise: float = Field(default=0.0, ge=0)
    """Largest strength of the noise on the frames that the recurrent part hears in
    training, drawn anew for each sequence; 1 is as strong as the model's own errors.
    Teaches it to sing on from frames that it drew itself."""
    batch_size: int = Field(default=12, ge=1)
    """Sequences per step."""
    sequence_length: int = Field(default=64, ge=2)
    """Frames per sequence that count."""
    warm_up: int = Field(default=16, ge=0)
    """Frames before them, which only warm the state."""
    trim_silence_s: float | None = Field(default=0.1, ge=0)
    """Silence kept before the first and after the last segment of a recording;
    None keeps all."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Rule of the steps; `rmsprop` with decay 0.9 and epsilon 1e-6 inside the root."""
    non_finite: Literal["skip", "shrink"] = "skip"
    """A non-finite gradient skips the step, or its values are replaced by a tenth
    of the parameter's, so that the parameter shrinks."""
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
    """What is trained, in order."""
    validate_every: int = Field(default=100, ge=1)
    """Updates between two looks at the validation split."""


class ForecastConfig(Options):
    """RNN-RBM over units: which one comes next (docs/prior.md)."""

    n_recurrent: int = Field(default=32, gt=0)
    """Recurrent units."""
    n_hidden: int = Field(default=32, gt=0)
    """Hidden units of the RBM."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """On the state that conditions the biases."""
    forgotten: float = Field(default=0.05, ge=0, lt=1)
    """Share of the units that it is not told, so that an `unknown` does no harm."""
    pause_ms: float = Field(default=500.0, gt=0)
    """Silence after which what comes next begins anew."""
    gap_bins: int = Field(default=8, ge=1)
    """Bins into which the silences between units are sorted."""
    updates: int = Field(default=300, ge=1)
    """Steps of the optimizer."""
    batch_size: int = Field(default=16, ge=1)
    """Phrases per step."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """At the first step; falls to 1 % along a half cosine."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    validate_every: int = Field(default=25, ge=1)
    """Updates between two looks at the validation split."""


class CardConfig(Options):
    """What the bundle says about itself.

    Where empty, the dataset's README.md is asked: its lines `Licence: ...` and
    `Attribution: ...`, and its first paragraph.
    """

    name: str = ""
    """Name of the bundle; empty: the name of its folder."""
    species: str = ""
    """Species, or the speaker, or the instrument."""
    licence: str = ""
    """Licence of the bundle, which follows from that of the training data."""
    attribution: str = ""
    """Who is to be named with it."""
    description: str = ""
    """One paragraph for the bundle's card."""


class TrainConfig(Options):
    """A recipe: what `neurovocal train --config` reads."""

    version: Literal[1] = 1
    seed: int = Field(default=0, ge=0)
    """Of every random choice; the same seed gives the same bundle."""
    threads: int = Field(default=1, ge=1)
    """CPU threads; another number may change results in the last digits."""
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
    """None trains no forecast; without a classifier there is none, either."""
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _something(self) -> "TrainConfig":
        if self.classifier is None and self.rnn_rbm is None:
            raise ValueError("one of 'classifier' and 'rnn_rbm' must be trained")
        return self


def load_config(path: Path | None) -> TrainConfig:
    """Read a recipe; without a path, the recommended defaults.

    Raises
    ------
    ConfigError
        All mistakes at once, each with file and line.
    """
    if path is None:
        return TrainConfig()
    located = read_located(path)
    try:
        return TrainConfig.model_validate(located.data)
    except ValidationError as error:
        raise ConfigError(explain(error, TrainConfig, located)) from error

"""Model bundles: folders with the graphs, front end, labels and calibration of a model.

Training writes the manifest; the engine checks it when it loads the bundle. The files
and the tensors of each graph are described in docs/reference/bundle.md.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from os.path import isdir, isfile, realpath
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.refusals import sentences_of
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.names import at_home

MANIFEST_NAME = "manifest.yaml"
_VERSION = 1
_MOST_LENGTH = 2**24  # values of a frame or state
_MOST_BYTES = 2**30  # of a file
_MOST_SHIFT_MS = 50.0  # of the end of a label
_PLUGIN = re.compile(r"[\w-]{1,64}")


def _installed(name: str) -> str:
    if not _PLUGIN.fullmatch(name):
        raise ValueError(
            f"'{name[:64]}' is not the name of an installed plugin: a bundle may come "
            "from a stranger, so it may not name a file to be run"
        )
    return name


def _check_state(state: dict[str, list[int]]) -> None:
    for name, shape in state.items():
        if min(shape, default=1) < 1 or math.prod(shape) > _MOST_LENGTH:
            raise ValueError(f"state: '{name}' has the impossible shape {shape}")


Installed: TypeAlias = Annotated[str, AfterValidator(_installed)]
"""Name of a plugin that is installed; never a file."""


class Section(Options):
    """Part of a manifest: no number in it is infinite."""

    model_config = ConfigDict(allow_inf_nan=False)


class FrontEnd(Section):
    """Features plugin and frame shape that the networks were trained with."""

    plugin: Installed = "spectrogram"
    sample_rate: int = Field(gt=0, le=10_000_000)
    hop_length: int = Field(gt=0, le=_MOST_LENGTH)
    frame_length: int = Field(gt=0, le=_MOST_LENGTH)
    n_bins: int = Field(gt=0, le=_MOST_LENGTH)
    options: dict[str, Any] = {}
    """Options of the features plugin; file names are relative to the bundle."""


# Detector of a lane for which neither the configuration nor a bundle names one.
DEFAULT_DETECTOR = "bands"


class DetectorSpec(Section):
    """Detector plugin and options that the bundle's figures were measured with."""

    plugin: Installed = "energy"
    options: dict[str, Any] = {}
    """Options that differ from the plugin's defaults."""
    fast_options: dict[str, Any] = {}
    """Further options of the profile `fast`."""


class DetectorNetworkSpec(Section):
    """State contract of ``detector.onnx``, which corrects the score of a detector.

    Its rows are those of the noise floors, one per hop: it knows neither the level nor
    the sample rate of a stream.
    """

    file: str = "detector.onnx"
    n_bands: int = Field(gt=0, le=_MOST_LENGTH)
    state: dict[str, list[int]]
    """Input name -> shape of each recurrent state; the output is NAME_next."""
    look_ahead: int = Field(ge=0, le=1000)
    """Rows that the correction of a row waits for."""

    @model_validator(mode="before")
    @classmethod
    def _is_of_this_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and "on" in values:
            raise ValueError(
                "the detector network is of an earlier kind, with thresholds of its "
                "own: train it again with `neurovocal train --detector`"
            )
        return values

    @model_validator(mode="after")
    def _states_make_sense(self) -> "DetectorNetworkSpec":
        _check_state(self.state)
        return self


class TypicalSpec(Section):
    """Range of the annotated segments of a unit."""

    shortest: int = Field(ge=0)
    """Frames of the shortest segment that can be the unit."""
    longest: int = Field(ge=1)
    """Frames of the longest one."""
    agreement: float = Field(le=0)
    """Mean log-posterior of the unit, over the frames that decide, below which the
    segment is another sound."""


class EndsSpec(Section):
    """Where annotators set the ends of a unit, against where the detector does."""

    onset_ms: float = Field(ge=-_MOST_SHIFT_MS, le=_MOST_SHIFT_MS)
    """Added to the onset."""
    offset_ms: float = Field(ge=-_MOST_SHIFT_MS, le=_MOST_SHIFT_MS)
    """Added to the offset."""


class EarlySpec(Section):
    """Calibration of labels given before the segment has ended."""

    frames: int = Field(ge=1)
    """Holds from so many frames of the segment on."""
    temperature: float = Field(gt=0)
    """As `temperature` of the final label."""
    thresholds: dict[str, float] = {}
    """As `thresholds` of the final label."""


class ClassifierSpec(Section):
    """State contract and calibration of ``classifier.onnx``."""

    file: str = "classifier.onnx"
    units: list[str]
    """Names of the outputs, in order; one of them is `silence`."""
    silence: str = ""
    """The unit that means 'no vocalization'; the empty string is customary."""
    unknown: str = "unknown"
    """Label of a segment that no unit reaches its threshold for."""
    state: dict[str, list[int]]
    """Input name -> shape of each recurrent state; the output is NAME_next."""
    decision: Literal["vote", "last"] = "vote"
    """Log-posteriors that decide a segment's label: the sum over all of its frames, or
    those of its last frame alone."""
    temperature: float = Field(default=1.0, gt=0)
    """Calibration of the log-posteriors that decide (validation data)."""
    thresholds: dict[str, float] = {}
    """Posterior below which a unit is answered with `unknown`."""
    typical: dict[str, TypicalSpec] = {}
    """Per unit, range of its segments: one outside is `unknown`. A posterior
    compares the units with each other; this says whether it is any of them."""
    ends: dict[str, EndsSpec] = {}
    """Per unit, how a final label's onset and offset differ from the detector's."""
    early: list[EarlySpec] = []
    """Calibration of provisional and revised labels, by rising `frames`; before the
    first entry it holds, too. Empty: that of the final label."""
    provisional_ms: float = Field(default=20.0, ge=0)
    """Delay after onset at which the first provisional label is worth giving."""
    sure: dict[str, float] = {}
    """Per unit, the score at which the profile `fast` names it before the offset: the
    posterior times the probability that the newest frame is no silence."""

    @model_validator(mode="after")
    def _units_make_sense(self) -> "ClassifierSpec":
        _check_state(self.state)
        if len(set(self.units)) != len(self.units):
            raise ValueError("units: a name occurs twice")
        if self.silence not in self.units:
            raise ValueError(f"units: silence, '{self.silence}', is not one of them")
        if self.unknown in self.units:
            raise ValueError(
                f"units: '{self.unknown}' is the label of segments that are none of "
                "them: train without it"
            )
        if len(self.units) < 2:
            raise ValueError("units: there is none but silence")
        frames = [entry.frames for entry in self.early]
        if frames != sorted(set(frames)):
            raise ValueError("early: 'frames' must rise from entry to entry")
        return self


class RnnRbmSpec(Section):
    """State contract and baseline of the RNN-RBM graphs."""

    file: str = "rnn_rbm.onnx"
    sample_file: str = "rnn_rbm_sample.onnx"
    visible: Literal["bernoulli", "gaussian"]
    n_visible: int = Field(gt=0, le=_MOST_LENGTH)
    n_hidden: int = Field(gt=0, le=_MOST_LENGTH)
    n_recurrent: int = Field(gt=0, le=_MOST_LENGTH)
    n_layers: int = Field(ge=1, le=3)
    gates: Literal["sigmoid", "tanh", "simple"] = "sigmoid"
    gibbs_steps: int = Field(default=20, ge=0, le=10_000)
    free_energy_mean: float
    """Mean free energy per frame on validation data, in nats."""
    free_energy_std: float = Field(gt=0)
    residual_file: str = "residual.npz"
    """Noise of drawn frames: `chol`, a factor of the residual covariance, or a
    mixture that the state chooses from; `sigma`; see docs/reference/bundle.md."""


class PriorSpec(Section):
    """Exponent of the forecast in its product with the classifier."""

    frames: int = Field(ge=0)
    """Holds from so many frames of the segment on."""
    weight: float = Field(ge=0)
    """Chosen on validation data; 0: the sound says more alone."""


class ForecastSpec(Section):
    """State contract of ``forecast.onnx`` and its weight as a prior."""

    file: str = "forecast.onnx"
    n_recurrent: int = Field(gt=0, le=_MOST_LENGTH)
    gap_edges_ms: list[float]
    """Silences that separate the bins of the inputs, rising."""
    pause_ms: float = Field(gt=0)
    """Silence after which a new phrase begins, with state 0."""
    early: list[PriorSpec] = []
    """Weights for labels of a segment that still lasts, by frames, rising."""
    prior_weight: float = Field(default=0.0, ge=0)
    """As those of `early`, for the final label."""
    followed: list[list[int]] = []
    """How often unit k came after each unit in training (the last row: began a
    phrase); the yardsticks of `evaluate` are computed from it."""


class PlanSpec(Section):
    """State contract of ``rnn_rbm_plan.onnx``, which draws frames after a plan."""

    file: str = "rnn_rbm_plan.onnx"
    units: list[str]
    """Units of the plan, in the order of the condition, without silence."""
    n_visible: int = Field(gt=0, le=_MOST_LENGTH)
    n_condition: int = Field(gt=0, le=_MOST_LENGTH)
    """Values that tell the network the plan of the frame to be drawn."""
    n_hidden: int = Field(gt=0, le=_MOST_LENGTH)
    n_recurrent: int = Field(gt=0, le=_MOST_LENGTH)
    n_layers: int = Field(ge=1, le=3)
    gibbs_steps: int = Field(default=20, ge=0, le=10_000)
    residual_file: str = "plan_residual.npz"
    """As `residual_file` of the RNN-RBM."""
    tables_file: str = "plan.npz"
    """Durations, silences and ends of the units; see docs/reference/bundle.md."""


class Manifest(Section):
    """Content of ``manifest.yaml``."""

    version: Literal[1] = 1
    name: str
    species: str
    licence: str
    attribution: str
    stated_front_end: FrontEnd | None = Field(default=None, alias="front_end")
    """None in a bundle that is a detector alone; see `front_end`."""
    detector: DetectorSpec | None = None
    """Used where the configuration names no detector; the figures hold for it."""
    detector_network: DetectorNetworkSpec | None = None
    classifier: ClassifierSpec | None = None
    rnn_rbm: RnnRbmSpec | None = None
    forecast: ForecastSpec | None = None
    plan: PlanSpec | None = None
    """The RNN-RBM that sings after a plan; None in bundles without one."""
    golden: str = "golden.npz"
    golden_tolerance: float = Field(default=1e-4, gt=0, le=0.01)
    training: dict[str, Any] = {}
    """Data, split, seed, seconds and the command that made the bundle."""
    figures: dict[str, Any] = {}
    """Measures on the test split."""
    files: dict[str, str] = {}
    """sha256 of every other file of the bundle."""

    @model_validator(mode="after")
    def _parts_belong_together(self) -> "Manifest":
        if self.forecast is not None and self.classifier is None:
            raise ValueError("forecast: without a classifier there are no units")
        if self.plan is not None and not (self.rnn_rbm and self.forecast):
            raise ValueError("plan: needs rnn_rbm and forecast")
        models = self.classifier or self.rnn_rbm
        if self.stated_front_end is None and (models or not self.detector_network):
            raise ValueError("front_end: only a bundle that is a detector has none")
        return self

    @property
    def front_end(self) -> FrontEnd:
        """Front end of the classifier and the RNN-RBM.

        Raises
        ------
        BundleError
            The bundle is a detector alone, which has none.
        """
        if self.stated_front_end is None:
            raise BundleError(
                f"bundle '{self.name}' is a detector alone, with no front end, "
                "classifier or RNN-RBM: it can be the bundle of detector 'network'"
            )
        return self.stated_front_end

    def rate_of(self, sample_rate: int) -> int:
        """Return the rate of a lane with this bundle, in Hz: its own, or the stream's.

        Parameters
        ----------
        sample_rate : int
            Rate of the stream in Hz, at which a detector alone runs.
        """
        own = self.stated_front_end
        return sample_rate if own is None else own.sample_rate


@dataclass(frozen=True, slots=True)
class Bundle:
    """Bundle with complete and unchanged files."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Return the path of one of the bundle's files.

        Raises
        ------
        BundleError
            The manifest does not list the file, so that nobody has checked it.
        """
        path = self.folder / name
        real = realpath(path)
        listed = (self.folder / each for each in self.manifest.files)
        if not any(real == realpath(each) for each in listed):
            raise BundleError(_unlisted(self.folder, name))
        return path


def file_in(place: Bundle | Path, name: str) -> Path:
    """Return the path of a file of a bundle, or of a folder that is to become one.

    Raises
    ------
    BundleError
        The bundle does not list the file, or it lies outside the folder.
    """
    if isinstance(place, Bundle):
        return place.path(name)
    path = place / name
    if not _lies_in(place, path):
        raise BundleError(f"bundle '{place}': file '{name}' lies outside the bundle")
    return path


def find_bundle(name: str, base: Path | None = None) -> Path:
    """Find the folder of a bundle by path, or by the name of one that ships.

    Parameters
    ----------
    name : str
        Path from the working folder or from `base`, or a shipped name.
    base : Path, optional
        Folder of the configuration that names the bundle.

    Raises
    ------
    BundleError
        There is no such bundle; the message lists the bundles that ship.
    """
    path = at_home(name)
    shipped = Path(str(files("neurovocal.models"))).resolve() / "pretrained"
    candidates = [path]
    if not path.is_absolute():
        candidates += [base / path] if base else []
        candidates.append(shipped / path.name)
    for candidate in candidates:
        if isfile(candidate / MANIFEST_NAME):
            return candidate
    if isdir(path):
        raise BundleError(
            f"bundle '{name}' has no {MANIFEST_NAME}: is it a model bundle?"
        )
    if isfile(path):
        raise BundleError(f"bundle '{name}' is a file: a bundle is a folder")
    known = ", ".join(shipped_bundles())
    raise BundleError(f"bundle '{name}' does not exist (bundles that ship: {known})")


def shipped_bundles() -> list[str]:
    """Return the names of the bundles that ship, sorted."""
    shipped = Path(str(files("neurovocal.models"))).resolve() / "pretrained"
    return sorted(path.parent.name for path in shipped.glob(f"*/{MANIFEST_NAME}"))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle without verifying its files.

    Raises
    ------
    BundleError
        It is missing or unreadable.
    """
    return _read_manifest(folder / MANIFEST_NAME)


def load_bundle(name: str | Path, base: Path | None = None) -> Bundle:
    """Read a bundle's manifest and verify every file against its checksum.

    Raises
    ------
    BundleError
        Missing or unreadable manifest, or a file that is missing, changed or
        outside the bundle's folder; one sentence per problem.
    """
    folder = find_bundle(str(name), base)
    manifest = _read_manifest(folder / MANIFEST_NAME)
    problems = [
        problem
        for name, digest in manifest.files.items()
        if (problem := _file_problem(folder, name, digest))
    ]
    bundle = Bundle(folder, manifest)
    for each in sorted(set(_named_files(bundle))):
        try:
            bundle.path(each)
        except BundleError as error:
            problems.append(str(error))
    if problems:
        raise BundleError(problems)
    return bundle


def _named_files(bundle: Bundle) -> Iterator[str]:
    """Yield the files that the manifest names, those in options with them."""
    manifest = bundle.manifest
    yield manifest.golden
    if (classifier := manifest.classifier) is not None:
        yield classifier.file
    if (rnn_rbm := manifest.rnn_rbm) is not None:
        yield from (rnn_rbm.file, rnn_rbm.sample_file, rnn_rbm.residual_file)
    if manifest.forecast is not None:
        yield manifest.forecast.file
    if manifest.detector_network is not None:
        yield manifest.detector_network.file
    # A text in options that is the name of a file will be read by some plugin.
    front_end = manifest.stated_front_end
    options = [front_end.options] if front_end else []
    options += [manifest.detector.options] if manifest.detector else []
    for text in _texts(options):
        if text and isfile(bundle.folder / text):
            yield text


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for each in data.values() if isinstance(data, dict) else data:
            yield from _texts(each)


def _lies_in(folder: Path, path: Path) -> bool:
    """Return whether a file lies in a folder, links followed."""
    return Path(realpath(path)).is_relative_to(realpath(folder))


def _unlisted(folder: Path, name: str) -> str:
    return (
        f"bundle '{folder}': {name} is not listed under 'files' in {MANIFEST_NAME}: "
        "the manifest was altered, or is incomplete: copy or train the bundle again"
    )


def _read_manifest(path: Path) -> Manifest:
    try:
        content = safe_yaml.load(safe_yaml.read_text(path), is_written=True)
        return Manifest.model_validate(content)
    except safe_yaml.YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise BundleError(f"{path}{line}: not valid YAML: {error}") from error
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read: {error.strerror or error}"
        ) from error
    except ValidationError as error:
        if not isinstance(content, dict):
            raise BundleError(f"{path}: holds no 'key: value' lines") from error
        if isinstance(stated := content.get("version"), int) and stated > _VERSION:
            raise BundleError(
                f"{path}: version {stated} was made by a newer neurovocal, this one "
                f"reads version {_VERSION}: update neurovocal"
            ) from error
        raise BundleError(sentences_of(error, Manifest, f"{path}: ")) from error


def _file_problem(folder: Path, name: str, digest: str) -> str | None:
    path = folder / name
    where = f"bundle '{folder}': file '{name}'"
    try:
        if not _lies_in(folder, path):
            return f"{where} lies outside the bundle"
        if not isfile(path):
            return f"{where} is missing"
        if path.stat().st_size > _MOST_BYTES:
            return f"{where} is larger than {_MOST_BYTES} bytes"
        if sha256(path) == digest:
            return None
    except OSError as error:
        return f"{where} cannot be read: {error.strerror}"
    return (
        f"{where} is damaged or was changed (its sha256 differs from the manifest): "
        "copy the bundle again"
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

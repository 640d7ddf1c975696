"""Manifest of an audio classifier that another program exported as an ONNX file."""

import importlib.util
import math
from dataclasses import dataclass, field
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError, field_validator

from neurovocal.engine import ConfigError, Options
from neurovocal.engine.config.located_yaml import Located, Location, read_located
from neurovocal.engine.config.validation import validation_problems
from neurovocal.engine.contracts.options import HIGHEST_HZ, SampleRate

Axis: TypeAlias = Literal["batch", "channel", "samples", "time", "mel"]
Activation: TypeAlias = Literal["none", "sigmoid", "softmax"]
Length: TypeAlias = Annotated[int, Field(ge=1, le=2**24)]
Shape: TypeAlias = Annotated[list[Length], Field(max_length=8)]

_PACKAGE = "package:"
_MOST_LABELS = 100_000
_MOST_VALUES = 2**24
_TYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "bool": np.bool_,
}


class Part(Options):
    """Part of a manifest: no number in it is infinite."""

    model_config = ConfigDict(allow_inf_nan=False)


class LogMel(Part):
    """Front end outside of the graph: log-mel bands of each window.

    Column ``t`` covers samples ``[t * hop_length, t * hop_length + frame_length)`` of
    the window; a window has ``1 + (window - frame_length) // hop_length`` columns,
    with `centre` ``1 + window // hop_length``, padded by reflection.
    """

    n_mels: int = Field(ge=1, le=1024)
    """Bands."""
    frame_length: int = Field(ge=2, le=2**20)
    """Samples per column."""
    hop_length: int = Field(ge=1, le=2**20)
    """Samples between columns."""
    n_fft: int | None = Field(default=None, ge=2, le=2**20)
    """Length of the Fourier transform, filled with zeros; default: frame_length."""
    low_hz: float = Field(default=0.0, ge=0, le=HIGHEST_HZ)
    """Lower edge of the lowest band."""
    high_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Upper edge of the highest band; default: half the sample rate."""
    window: Literal["hann", "hamming", "rectangular"] = "hann"
    """Window of each column, periodic."""
    centre: bool = False
    """Whether columns are centred on multiples of hop_length."""
    power: Literal[1, 2] = 2
    """Magnitude (1) or power (2) of the spectrum."""
    scale: Literal["slaney", "htk"] = "slaney"
    """Mel scale: of Slaney's Auditory Toolbox (librosa's default) or of HTK."""
    norm: Literal["slaney", "none"] = "slaney"
    """Whether each band has the area 1 (slaney) or the height 1."""
    log: Literal["natural", "log10", "db", "none"] = "natural"
    """Logarithm; `db` is 10 times log10 of power, or 20 times that of magnitude."""
    floor: float = Field(default=1e-10, gt=0, le=1)
    """Least value of a band before the logarithm."""
    offset: float = Field(default=0.0, ge=0, le=1e6)
    """Added to each band before the logarithm."""
    mean: float = Field(default=0.0, ge=-1e6, le=1e6)
    """Subtracted afterwards."""
    deviation: float = Field(default=1.0, gt=0, le=1e6)
    """Divisor after that."""


class InputTensor(Part):
    """Input that takes the audio."""

    tensor: str
    """Name of the graph's input."""
    axes: list[Axis] = ["batch", "samples"]
    """Meaning of each axis: `batch` and `channel` have the length 1 (`channel`: the
    manifest's channels), `samples` is a window with its context; behind a front end
    `time` and `mel`."""

    @field_validator("axes")
    @classmethod
    def _once(cls, axes: list[str]) -> list[str]:
        if len(set(axes)) < len(axes):
            raise ValueError("names an axis twice")
        return axes


class OutputTensor(Part):
    """Output with a value per label."""

    tensor: str
    """Name of the graph's output; its last axis has a value per label. Other axes, such
    as one of time, are pooled like windows."""
    activation: Activation = "none"
    """What turns the values into posteriors: `sigmoid` where several labels can hold at
    once, `softmax` where one does, `none` where the graph has done so."""


class Constant(Part):
    """Input that is always the same, such as the sample rate."""

    tensor: str
    """Name of the graph's input."""
    value: float | int | bool | list[float]
    """One value, which fills `shape`, or all values in order."""
    type: Literal["float32", "float64", "int64", "int32", "bool"] = "float32"
    """Type of the elements."""
    shape: Annotated[list[Length], Field(max_length=8)] = []
    """Lengths of the axes; none: a scalar."""

    def array(self) -> NDArray[Any]:
        """Return the tensor.

        Raises
        ------
        ValueError
            The number of values is not that of the shape.
        """
        values: NDArray[Any] = np.asarray(self.value, _TYPES[self.type])
        if values.ndim == 0:
            return np.full(self.shape, values)
        return values.reshape(self.shape)


class State(Part):
    """Recurrent state: an output of one window is an input of the next."""

    input: str
    """Name of the graph's input; zeros at the start of a stream and behind a gap."""
    output: str
    """Name of the graph's output that holds the next state."""
    shape: Shape
    """Lengths of its axes."""


class AudioInput(Part):
    """Graph in an ONNX file that takes a window of samples.

    All lengths are in samples at the graph's own sample rate.
    """

    graph: str
    """ONNX file, relative to the manifest, or `package:NAME/FILE`, a file of an
    installed Python package."""
    sample_rate: SampleRate
    """Rate in Hz; audio of another rate is resampled."""
    window: int = Field(ge=1, le=2**24)
    """Samples that a result is about."""
    context: int = Field(default=0, ge=0, le=2**20)
    """Samples before each window that the graph gets with it; zeros at the start of a
    stream and behind a gap."""
    channels: int = Field(default=1, ge=1, le=8)
    """Channels that the graph wants: a lane has one, which all of them get."""
    scaling: float = Field(default=1.0, gt=0, le=1e6)
    """Factor of the samples, which lie in [-1, 1]; 32768 for graphs that want the
    range of 16-bit integers."""
    input: InputTensor
    """Input that takes the audio."""
    log_mel: LogMel | None = None
    """Front end, where the graph does not have its own."""
    constants: list[Constant] = Field(default=[], max_length=32)
    """Inputs that never change."""


class OnnxManifest(AudioInput):
    """Audio classifier in an ONNX file: what goes in, what comes out, and its labels.

    All lengths are in samples at the classifier's own sample rate.
    """

    version: Literal[1]
    """Version of this format."""
    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    """Name of the model in labels, by which those of several models are told apart."""
    hop: int | None = Field(default=None, ge=1, le=2**24)
    """Samples from one window to the next; default: window."""
    state: list[State] = Field(default=[], max_length=32)
    """Recurrent states; they need `hop` to be `window`."""
    output: OutputTensor
    """Output with the posteriors."""
    labels: list[str] | None = Field(
        default=None, min_length=1, max_length=_MOST_LABELS
    )
    """Names of the outputs, in order."""
    labels_file: str | None = None
    """Text file with a name per line, relative to the manifest, in place of labels."""
    background: list[str] = []
    """Labels that are never given, such as `noise`."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Posterior below which the label is `unknown`."""
    top_k: int = Field(default=1, ge=1, le=100)
    """Most labels of a segment."""
    pool: Literal["max", "mean"] = "max"
    """How the posteriors of a segment's windows become one."""
    licence: str = ""
    """Licence of the network, for people."""
    source: str = ""
    """Where the network comes from, for people."""


@dataclass(frozen=True, slots=True)
class LoadedInput:
    """What a graph takes, with the lines of the manifest's file and the graph's path.

    Parameters
    ----------
    manifest : AudioInput
        The manifest, or the part of it that describes the graph.
    located : Located
        The data with their lines.
    graph : Path
        The ONNX file.
    is_trusted : bool
        The file belongs to an installed package, which could run any code anyway.
    part : tuple of str
        Keys that lead to the part; empty: it is the whole manifest.
    """

    manifest: AudioInput
    located: Located
    graph: Path
    is_trusted: bool
    part: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def n_columns(self) -> int:
        """Columns of the front end per window with its context; 0 without one."""
        mel = self.manifest.log_mel
        if mel is None:
            return 0
        length = self.manifest.context + self.manifest.window
        if mel.centre:
            return 1 + length // mel.hop_length
        return 1 + (length - mel.frame_length) // mel.hop_length

    def axis_lengths(self) -> dict[str, int]:
        """Return the length of each axis that the input may have."""
        manifest = self.manifest
        lengths = {"batch": 1, "channel": manifest.channels}
        if manifest.log_mel is None:
            return {**lengths, "samples": manifest.context + manifest.window}
        return {**lengths, "time": self.n_columns, "mel": manifest.log_mel.n_mels}

    def problem(self, loc: Location, what: str) -> str:
        """Return a sentence about a place in the manifest, with file and line."""
        return self.located.problem((*self.part, *loc), what)

    def problems(self) -> list[str]:
        """Return what is wrong with the part, as far as no graph is needed."""
        found: list[str] = []

        def refuse(loc: Location, what: str) -> None:
            found.append(self.problem(loc, what))

        if not isfile(self.graph):
            refuse(("graph",), _missing(self.manifest.graph, self.graph))
        _check_front_end(self, refuse)
        _check_tensors_stated(self.manifest, refuse)
        return found


@dataclass(frozen=True, slots=True)
class LoadedManifest(LoadedInput):
    """Manifest of a classifier with the lines of its file, labels and graph's path.

    Parameters
    ----------
    manifest, located, graph, is_trusted
        As in `LoadedInput`.
    labels : tuple of str
        Names of the outputs.
    """

    manifest: OnnxManifest
    labels: tuple[str, ...]

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        return self.manifest.hop or self.manifest.window


def load_manifest(path: Path) -> LoadedManifest:
    """Read a manifest; check all of it that needs no graph.

    Raises
    ------
    ConfigError
        All mistakes at once, each with file and line.
    """
    located = read_located(path, noun="manifest")
    try:
        manifest = OnnxManifest.model_validate(located.data)
    except ValidationError as error:
        raise ConfigError(validation_problems(error, OnnxManifest, located)) from error
    problems: list[str] = []

    def refuse(loc: Location, what: str) -> None:
        problems.append(located.problem(loc, what))

    labels = _labels(manifest, path, refuse)
    graph, is_trusted = graph_path(manifest.graph, path)
    loaded = LoadedManifest(manifest, located, graph, is_trusted, labels)
    problems += loaded.problems()
    _check_state(loaded, refuse)
    for label in manifest.background:
        if labels and label not in labels:
            refuse(("background",), f"there is no label '{label}'")
    if problems:
        raise ConfigError(problems)
    return loaded


def _labels(manifest: OnnxManifest, path: Path, refuse: Any) -> tuple[str, ...]:
    """Return the names of the outputs."""
    where: Location = ("labels",)
    labels = manifest.labels or []
    if (manifest.labels is None) == (manifest.labels_file is None):
        refuse((), "give either 'labels' or 'labels_file'")
        return ()
    if manifest.labels_file is not None:
        where = ("labels_file",)
        file = path.parent / manifest.labels_file
        if file.exists() and not file.is_file():  # a device or pipe may never end
            refuse(where, f"'{file}' is no file")
            return ()
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            refuse(where, f"'{file}' cannot be read: {reason}")
            return ()
        labels = [line.strip() for line in lines if line.strip()]
        if not 1 <= len(labels) <= _MOST_LABELS:
            refuse(where, f"'{file}' has {len(labels)} labels")
            return ()
    if any(not label.strip() or not label.isprintable() for label in labels):
        refuse(where, "a label is empty or has control characters")
    doubled = (
        sorted({label for label in labels if labels.count(label) > 1})
        if (len(set(labels)) < len(labels))
        else []
    )
    if doubled:
        refuse(where, f"label '{doubled[0]}' is given twice")
    return tuple(labels)


def graph_path(name: str, manifest: Path) -> tuple[Path, bool]:
    """Return the path of the graph, and whether it is a package's."""
    if not name.startswith(_PACKAGE):
        return manifest.parent / name, False
    package, _, file = name.removeprefix(_PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / file
        if path.resolve().is_relative_to(Path(folder).resolve()):
            return path, True
    return Path(name), False


def _missing(name: str, path: Path) -> str:
    if not name.startswith(_PACKAGE):
        return f"the ONNX file '{path}' does not exist"
    package, _, file = name.removeprefix(_PACKAGE).partition("/")
    distribution = package.replace("_", "-")
    if str(path) == name:
        return f"the package '{package}' is missing (pip install {distribution})"
    return f"the package '{package}' has no file '{file}'"


def _check_state(loaded: LoadedManifest, refuse: Any) -> None:
    manifest = loaded.manifest
    if manifest.state and loaded.hop != manifest.window:
        refuse(
            ("hop",) if manifest.hop else ("state",),
            f"a graph with state hears each sample once: hop must be window "
            f"({manifest.window})",
        )
    for number, state in enumerate(manifest.state):
        if math.prod(state.shape) > _MOST_VALUES:
            refuse(("state", number, "shape"), "has too many values")


def _check_front_end(loaded: LoadedInput, refuse: Any) -> None:
    manifest = loaded.manifest
    mel = manifest.log_mel
    if mel is None:
        return
    if loaded.n_columns < 1:
        refuse(
            ("log_mel", "frame_length"),
            f"a column has {mel.frame_length} samples, the window with its context "
            f"only {manifest.context + manifest.window}",
        )
    if mel.n_fft is not None and mel.n_fft < mel.frame_length:
        refuse(("log_mel", "n_fft"), f"must be at least {mel.frame_length}")
    nyquist = manifest.sample_rate / 2
    high_hz = mel.high_hz or nyquist
    if high_hz > nyquist:
        refuse(("log_mel", "high_hz"), f"half the sample rate is {nyquist:g}")
    if mel.low_hz >= high_hz:
        refuse(("log_mel", "low_hz"), f"must be below {high_hz:g}")


def _check_tensors_stated(manifest: AudioInput, refuse: Any) -> None:
    axes = manifest.input.axes
    needed = {"time", "mel"} if manifest.log_mel else {"samples"}
    has = {"samples", "time", "mel"} & set(axes)
    if has != needed:
        kind = "with log_mel" if manifest.log_mel else "without log_mel"
        refuse(
            ("input", "axes"),
            f"{kind} must have {' and '.join(sorted(needed))}, found "
            f"{', '.join(sorted(has)) or 'none'}",
        )
    if manifest.channels > 1 and "channel" not in axes:
        refuse(("channels",), "input.axes has no 'channel'")
    for number, constant in enumerate(manifest.constants):
        n_values = math.prod(constant.shape)
        if n_values > _MOST_VALUES:
            refuse(("constants", number, "shape"), "has too many values")
            continue
        try:
            constant.array()
        except (ValueError, OverflowError):
            refuse(
                ("constants", number, "value"),
                f"'{constant.tensor}' of shape {constant.shape} needs {n_values} "
                f"values of type {constant.type}",
            )

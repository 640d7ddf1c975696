"""Fitting of a detector to examples in a table, from files to a configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.models.data.formats.segments import AnnotationChoice, shown, where
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.tuning.doubts import (
    duration_doubts,
    fit_doubts,
    is_unheard,
    n_found,
    unheard,
    unheard_sentence,
)
from neurovocal.models.tuning.examples import (
    Example,
    ExampleTable,
    examples_of,
    is_name_of,
    joined,
    read_examples,
)
from neurovocal.models.tuning.fitting import Fit, fit, peaks_of
from neurovocal.models.tuning.stretches import HeardExamples, read_stretches
from neurovocal.plugins.sources.audio_files.file import RecordingHeader, inspect

PLUGIN = "excess"
_MOST_CHANNELS = 32  # that are searched for the examples


@dataclass(frozen=True, slots=True)
class TuningChoice:
    """Which rows of a table of examples are meant, and what they say.

    Parameters
    ----------
    annotation_format : str, optional
        Name of the table's format; None: it is seen from the file.
    annotation : AnnotationChoice
        Column and tier of labels.
    label : str, optional
        Only segments with this label are examples.
    channels : sequence of int
        Channels of the examples, from 1; empty: those that the table names, or the
        first.
    sparse : bool
        Whether other calls lie between the examples.
    """

    annotation_format: str | None = None
    annotation: AnnotationChoice = field(default_factory=AnnotationChoice)
    label: str | None = None
    channels: Sequence[int] = ()
    sparse: bool = False


@dataclass(frozen=True, eq=False)
class Tuned:
    """A detector that was fitted to examples.

    Parameters
    ----------
    options : dict
        Options of the `excess` detector that differ from its defaults.
    n_examples, n_hits, n_others : int
        Examples, how many of them are found, and other sounds that are found.
    heard_s : float
        Seconds of sound that it was fitted to.
    sample_rate : int
        Of the recordings, in Hz.
    channels : tuple of int
        Channels of the examples, from 1.
    """

    options: dict[str, Any]
    n_examples: int
    n_hits: int
    n_others: int
    heard_s: float
    sample_rate: int
    channels: tuple[int, ...]

    @property
    def detector(self) -> dict[str, Any]:
        """The detector as a configuration has it."""
        return {"plugin": PLUGIN, "options": self.options}

    @property
    def summary(self) -> str:
        """What it finds in the sound that it was fitted to."""
        s = "" if self.n_examples == 1 else "s"
        others = f"{self.n_others} other sound{'' if self.n_others == 1 else 's'}"
        return (
            f"finds {self.n_hits} of {self.n_examples} example{s} and {others} in "
            f"{self.heard_s:.1f} s"
        )


def tune(
    table: ExampleTable,
    recordings: Sequence[Path],
    choice: TuningChoice,
    tell: Callable[[str], object],
) -> Tuned:
    """Fit a detector to the examples of recordings.

    Parameters
    ----------
    table : ExampleTable
        The examples.
    recordings : sequence of Path
        Recordings that they are of.
    choice : TuningChoice
        Which channels are meant, and whether the annotation is sparse.
    tell : callable
        Receives sentences for the user.

    Raises
    ------
    ConfigError
        The examples cannot be used.
    """
    heard = _read(table, recordings, choice, tell)
    for sentence in duration_doubts([e for each in heard for e in each.examples]):
        tell(f"note: {sentence}")
    fitted = _fit(heard)
    silent = unheard(heard, fitted)
    if silent:
        if len(silent) == sum(len(each.examples) for each in heard):
            raise ConfigError(_silence(table, recordings, choice, heard))
        for example in silent:
            tell(f"note: {unheard_sentence(example)}")
        heard = _read(table, recordings, choice, lambda sentence: None, silent)
        fitted = _fit(heard)
    for sentence in fit_doubts(heard, fitted):
        tell(f"note: {sentence}")
    seconds = sum(
        len(each.stretch.samples) / each.stretch.sample_rate for each in heard
    )
    rate = heard[0].stretch.sample_rate
    channels = tuple(sorted({each.channel for each in heard}))
    return Tuned(fitted.options, *n_found(heard, fitted), seconds, rate, channels)


def _silence(
    table: ExampleTable,
    recordings: Sequence[Path],
    choice: TuningChoice,
    heard: Sequence[HeardExamples],
) -> str:
    """Return a sentence on examples in none of which anything is heard."""
    examples = [example for each in heard for example in each.examples]
    first = examples[0]
    name = recordings[0].name
    if not any(each.stretch.samples.any() for each in heard):
        return (
            f"{first.where}: '{name}' is digitally silent there, from "
            f"{heard[0].start_s:.3f} s on: is it of another recording or channel?"
        )
    others = ""
    if len(examples) > 1:
        plural = "s" if len(examples) > 2 else ""
        others = f", nor in the {len(examples) - 1} other example{plural},"
    sentence = (
        f"{first.where}: nothing is heard above the noise from {first.onset_s:.3f} to "
        f"{first.offset_s:.3f} s of '{name}'{others}: "
    ).replace(",:", ":")
    for channel in _other_channels(recordings, heard):
        other = replace(choice, channels=(channel,))
        there = _read(table, recordings, other, lambda told: None)
        if any(each.stretch.samples.any() for each in there):
            peaks, noise_db = peaks_of([each.stretch for each in there])
            if not any(is_unheard(peak, noise_db) for part in peaks for peak in part):
                return f"{sentence}channel {channel} holds them: --channels {channel}"
    return f"{sentence}is it of another recording or channel?"


def _other_channels(
    recordings: Sequence[Path], heard: Sequence[HeardExamples]
) -> list[int]:
    """Return channels that all recordings have and no example was looked for in."""
    common = min(_header(path).channels for path in recordings)
    used = {each.channel for each in heard}
    return [number for number in range(1, common + 1) if number not in used][
        :_MOST_CHANNELS
    ]


def _tell_of_many(
    heard: Sequence[HeardExamples], n_listed: int, tell: Callable[[str], object]
) -> None:
    """Tell that a part of many examples is used."""
    n_used = sum(len(each.examples) for each in heard)
    if n_used < n_listed:
        tell(
            f"note: {n_used} of {n_listed} examples are used, evenly chosen: two "
            "minutes of sound are enough"
        )


def _fit(heard: Sequence[HeardExamples]) -> Fit:
    with Reporter().stage("tuning") as on_progress:
        try:
            return fit([each.stretch for each in heard], on_progress)
        except ValueError as error:
            at = heard[0].examples[0].where
            raise ConfigError(
                f"{at}: the sound around the example is {error}"
            ) from error


def _read(
    table: ExampleTable,
    recordings: Sequence[Path],
    choice: TuningChoice,
    tell: Callable[[str], object],
    left_out: Sequence[Example] = (),
) -> list[HeardExamples]:
    """Read the sound of all examples."""
    heard: list[HeardExamples] = []
    rates: dict[int, Path] = {}
    for path in recordings:
        header = _header(path)
        rates.setdefault(header.sample_rate, path)
        rows, _ = table.of_recording(path)
        examples = examples_of(table, rows, path, header.sample_rate, header.duration_s)
        for channel in _channels(header, examples, choice.channels):
            own = [each for each in examples if each.channel in (None, channel)]
            own, notes = joined(own)
            own = [each for each in own if each not in left_out]
            for note in notes:
                tell(f"note: {note}")
            if own:
                read = [
                    *read_stretches(
                        path, own, channel, header.sample_rate, sparse=choice.sparse
                    )
                ]
                _tell_of_many(read, len(own), tell)
                heard += read
    if len(rates) > 1:
        (one, first), (other, second) = list(rates.items())[:2]
        raise ConfigError(
            f"{where(table.path)}: examples are of recordings of {one} Hz "
            f"('{first.name}') and {other} Hz ('{second.name}'): give examples of one "
            "rate"
        )
    if not heard:
        raise ConfigError(f"{where(table.path)}: no example is of these channels")
    return heard


def _header(path: Path) -> RecordingHeader:
    try:
        return inspect(path)
    except AudioFileError as error:
        raise ConfigError(str(error)) from error


def _channels(
    header: RecordingHeader, examples: Sequence[Example], chosen: Sequence[int]
) -> Sequence[int]:
    """Return the channels of a recording that are heard."""
    named = sorted({each.channel for each in examples if each.channel is not None})
    used = list(chosen) or named or [1]
    if max(used) > header.channels:
        count = f"{header.channels} channel" + "s" * (header.channels > 1)
        raise ConfigError(
            f"'{header.path}' has {count}, there is no channel {max(used)}"
        )
    return used


def tune_by_examples(
    table: Path,
    recordings: Sequence[Path],
    *,
    label: str | None = None,
    channels: Sequence[int] = (),
    tell: Callable[[str], object],
) -> dict[str, Any]:
    """Fit a detector for `detect --like`, as `engine.contracts.tuning.Tuner` says."""
    choice = TuningChoice(label=label, channels=channels)
    read = read_examples(table, label=label)
    for note in read.notes:
        tell(f"note: {note}")
    tuned = tune(read, recordings_of(read, recordings), choice, tell)
    tell(f"detector of '{table}': {tuned.summary}")
    return tuned.detector


def recordings_of(table: ExampleTable, recordings: Sequence[Path]) -> list[Path]:
    """Return the recordings of a table's examples, among some or beside the table.

    Raises
    ------
    ConfigError
        There is none, or the table does not say which one.
    """
    names = table.recordings()
    if names:
        return [_named(table, name, recordings) for name in names]
    suffix_less = table.path.name.partition(".")[0].casefold()
    alike = [
        path
        for path in recordings
        if path.name.partition(".")[0].casefold() == suffix_less
    ]
    if len(alike) == 1:
        return alike
    if len(recordings) == 1:
        return list(recordings)
    raise ConfigError(
        f"{where(table.path)}: does not say which of {len(recordings)} recordings its "
        "examples are of: add a column 'file', or tune first: neurovocal tune "
        f"RECORDING {table.path.name} --out my-detector.yaml"
    )


def _named(table: ExampleTable, name: str, recordings: Sequence[Path]) -> Path:
    found = [path for path in recordings if is_name_of(name, path)]
    exact = [path for path in found if path.as_posix().endswith(name.strip())]
    if found:
        return (exact or found)[0]
    beside = table.path.parent / name.strip().replace("\\", "/")
    if beside.is_file():
        return beside
    row = next(row for row in table.rows if row.recording == name)
    raise ConfigError(
        f"{where(table.path, row.line)}: the recording {shown(name)} of the example is "
        "neither among the files nor beside the table"
    )

"""Annotations in the formats that the crowsetta library reads."""

import math
from pathlib import Path
from typing import Any

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import AUDIO_SUFFIXES, Annotation
from neurovocal.models.data.label_words import clean_label, is_silence


def read_crowsetta(folder: Path, name: str) -> dict[str, list[Annotation]]:
    """Read the annotations of all recordings of a folder.

    Parameters
    ----------
    folder : Path
        Folder of audio files and annotation files, including subfolders.
    name : str
        crowsetta's name of the format.

    Returns
    -------
    dict
        Annotations by file name relative to `folder`.

    Raises
    ------
    ConfigError
        crowsetta is not installed or does not know the format, there is no
        annotation file, or one cannot be read or has no recording.
    """
    try:
        import crowsetta
    except ImportError as error:
        raise ConfigError(
            "--format needs crowsetta: install neurovocal[train]"
        ) from error
    known = crowsetta.formats.as_list()
    if name not in known:
        raise ConfigError(f"unknown annotation format '{name}': {', '.join(known)}")
    reader = crowsetta.formats.by_name(name)
    suffixes = (reader.ext,) if isinstance(reader.ext, str) else tuple(reader.ext)
    paths = [p for p in sorted(folder.rglob("*")) if p.name.endswith(suffixes)]
    if not paths:
        raise ConfigError(
            f"dataset '{folder}' has no {' or '.join(suffixes)} file (format {name})"
        )
    rows: dict[str, list[Annotation]] = {}
    for path in paths:
        for annotation in _read_file(reader, path, name):
            audio = _find_audio(folder, path, annotation)
            found = rows.setdefault(audio.relative_to(folder).as_posix(), [])
            found += _segments(annotation, audio, path)
    return rows


def _read_file(reader: Any, path: Path, name: str) -> list[Any]:
    """Read an annotation file without rounding its times."""
    try:
        found = reader.from_file(path)
        # crowsetta rounds to milliseconds by default.
        unrounded = {"round_times": False} if _rounds(found) else {}
        converted = found.to_annot(**unrounded)
    except Exception as error:  # each format raises other errors
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not a {name} file ({reason})") from error
    return converted if isinstance(converted, list) else [converted]


def _rounds(found: Any) -> bool:
    """Return True if the format has an option for rounding times."""
    return "round_times" in found.to_annot.__code__.co_varnames


def _find_audio(folder: Path, path: Path, annotation: Any) -> Path:
    """Find the recording that an annotation names, or one of the same name."""
    named = annotation.notated_path
    stems = [path.name]
    if named is not None:
        for candidate in (folder / named, path.parent / Path(named).name):
            if candidate.is_file() and candidate.suffix in AUDIO_SUFFIXES:
                return candidate
        stems.append(Path(named).name)
    for stem in stems:
        while "." in stem:
            stem = stem.rpartition(".")[0]
            for suffix in AUDIO_SUFFIXES:
                candidate = path.parent / f"{stem}{suffix}"
                if candidate.is_file():
                    return candidate
    raise ConfigError(f"{path}: no recording of the same name lies beside it")


def _segments(annotation: Any, audio: Path, path: Path) -> list[Annotation]:
    """Convert crowsetta's boxes or its single sequence to annotations."""
    if getattr(annotation, "bboxes", None):
        return [
            Annotation(float(box.onset), float(box.offset), str(box.label))
            for box in annotation.bboxes
        ]
    sequences = annotation.seq if isinstance(annotation.seq, list) else [annotation.seq]
    if len(sequences) != 1:
        raise ConfigError(
            f"{path}: has {len(sequences)} tiers, and which one holds the units is "
            "not known: export one tier"
        )
    return [
        Annotation(*_times_s(segment, audio), str(segment.label))
        for segment in sequences[0].segments
        if not is_silence(clean_label(str(segment.label)))
    ]


def _times_s(segment: Any, audio: Path) -> tuple[float, float]:
    """Return onset and offset in seconds, converted from samples if necessary."""
    onset_s, offset_s = segment.onset_s, segment.offset_s
    if onset_s is None or math.isnan(onset_s):
        import soundfile

        sample_rate = soundfile.info(audio).samplerate
        onset_s = segment.onset_sample / sample_rate
        offset_s = segment.offset_sample / sample_rate
    return float(onset_s), float(offset_s)

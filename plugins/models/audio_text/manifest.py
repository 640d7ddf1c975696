"""Manifest of two encoders that give audio and text vectors in one space."""

from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError

from neurovocal.engine import ConfigError
from neurovocal.engine.config.located_yaml import Located, Location, read_located
from neurovocal.engine.config.validation import validation_problems
from neurovocal.plugins.models.any_onnx.manifest import (
    AudioInput,
    Constant,
    LoadedInput,
    Part,
    graph_path,
)

MOST_NAMES = 1000
_LONGEST_NAME = 200
Fill: TypeAlias = Literal["around", "repeat", "silence"]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]


class AudioEncoder(AudioInput):
    """Encoder of audio; keys as in manifests of the model `onnx`."""

    output: str
    """Output with the vector; axes other than the last are averaged."""
    fill: Fill = "around"
    """What fills the window beside a shorter segment: the sound `around`, the segment
    again (`repeat`), or `silence` behind it. Of a longer one the middle is heard."""


class TextEncoder(Part):
    """Encoder of text."""

    graph: str
    """ONNX file, as that of the audio."""
    tokenizer: str
    """File `tokenizer.json` of the library tokenizers, relative to the manifest."""
    ids: str = "input_ids"
    """Input for the numbers of the tokens, [1, n_tokens]."""
    mask: str | None = "attention_mask"
    """Input with 1 for a token and 0 for filling; null: the graph has none."""
    types: str | None = None
    """Input with 0 for every token, where the graph has it."""
    longest: int = Field(default=77, ge=1, le=4096)
    """Tokens that a text is cut to."""
    length: int | None = Field(default=None, ge=1, le=4096)
    """Tokens that the graph takes, filled up; default: as many as the text has."""
    fill_id: int = Field(default=0, ge=0)
    """Number of the token that fills."""
    constants: list[Constant] = Field(default=[], max_length=32)
    """Inputs that never change."""
    output: str
    """Output with the vector; axes other than the last are averaged."""


class PairManifest(Part):
    """Two encoders in ONNX files whose vectors are near where sound and text agree."""

    version: Literal[1]
    """Version of this format."""
    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    """Name of the model in its events."""
    audio: AudioEncoder
    """Encoder of audio."""
    text: TextEncoder
    """Encoder of text."""
    names: list[Name] = Field(default=[], max_length=MOST_NAMES)
    """Names that sounds can get."""
    background: list[Name] = Field(default=[], max_length=MOST_NAMES)
    """Further texts that compete with the names and are never given, such as `wind`."""
    template: str = Field(default="{}", pattern=r"\{\}", max_length=_LONGEST_NAME)
    """Text that the encoder gets for a name, which stands in place of `{}`."""
    scale: float = Field(default=100.0, gt=0, le=1e4)
    """Factor of the cosine before the softmax over names: the encoders' logit scale."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Probability below which a sound gets no name."""
    licence: str = ""
    """Licence of the encoders, for people."""
    source: str = ""
    """Where they come from, for people."""


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """A manifest with the lines of its file and the paths that it names.

    Parameters
    ----------
    manifest : PairManifest
        The manifest.
    located : Located
        The data with their lines.
    audio : LoadedInput
        What the audio's graph takes.
    text_graph, tokenizer : Path
        Files of the text's encoder.
    text_is_trusted : bool
        The text's graph belongs to an installed package.
    """

    manifest: PairManifest
    located: Located
    audio: LoadedInput
    text_graph: Path
    text_is_trusted: bool
    tokenizer: Path

    def problem(self, loc: Location, what: str) -> str:
        """Return a sentence about a place in the manifest, with file and line."""
        return self.located.problem(loc, what)


def load_pair(path: Path) -> LoadedPair:
    """Read a manifest; check all of it that needs no graph.

    Raises
    ------
    ConfigError
        All mistakes at once, each with file and line.
    """
    located = read_located(path)
    try:
        manifest = PairManifest.model_validate(located.data)
    except ValidationError as error:
        raise ConfigError(validation_problems(error, PairManifest, located)) from error
    audio_graph, trusts_audio = graph_path(manifest.audio.graph, path)
    text_graph, trusts_text = graph_path(manifest.text.graph, path)
    loaded = LoadedPair(
        manifest,
        located,
        LoadedInput(
            manifest.audio, located, audio_graph, trusts_audio, part=("audio",)
        ),
        text_graph,
        trusts_text,
        path.parent / manifest.text.tokenizer,
    )
    problems = [*loaded.audio.problems(), *_text_problems(loaded)]
    for key in ("names", "background"):
        texts = getattr(manifest, key)
        problems += [
            located.problem((key, number), problem)
            for number, problem in name_problems(texts, manifest.names)
        ]
    if problems:
        raise ConfigError(problems)
    return loaded


def _text_problems(loaded: LoadedPair) -> list[str]:
    text = loaded.manifest.text
    problems = [
        loaded.problem(("text", key), f"the {what} '{path}' does not exist")
        for key, what, path in (
            ("graph", "ONNX file", loaded.text_graph),
            ("tokenizer", "tokenizer", loaded.tokenizer),
        )
        if not isfile(path)
    ]
    if text.length is not None and text.longest > text.length:
        problems.append(
            loaded.problem(
                ("text", "length"),
                f"must be at least 'longest', the {text.longest} tokens that a text "
                "is cut to",
            )
        )
    for number, constant in enumerate(text.constants):
        try:
            constant.array()
        except (ValueError, OverflowError):
            problems.append(
                loaded.problem(
                    ("text", "constants", number, "value"),
                    f"'{constant.tensor}' of shape {constant.shape} needs other "
                    f"values of type {constant.type}",
                )
            )
    return problems


def name_problems(texts: list[str], names: list[str]) -> list[tuple[int, str]]:
    """Return what is wrong with names or background texts, with their places."""
    problems: list[tuple[int, str]] = []
    seen: set[Any] = set() if texts is names else set(names)
    for number, text in enumerate(texts):
        if not text.strip() or not text.isprintable():
            problems.append((number, "is empty or has control characters"))
        elif text in seen:
            problems.append((number, f"'{text}' is given twice"))
        seen.add(text)
    return problems

"""Encoders of audio and of text: unit vectors, and how likely each name is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, ConfigError, Float32, Resampler, StageError
from neurovocal.engine.config.located_yaml import Location
from neurovocal.plugins.models.any_onnx.network import WindowGraph, no_tensor
from neurovocal.plugins.models.audio_text.manifest import Fill, LoadedPair
from neurovocal.plugins.models.onnx.session import is_finite, open_session

_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_FLOAT = "tensor(float)"
_TRIED = "a sound"


class EncodesAudio:
    """Audio encoder of a manifest.

    Parameters
    ----------
    loaded : LoadedPair
        The manifest.

    Attributes
    ----------
    sample_rate : int
        Rate of the samples in Hz.
    window : int
        Samples of a window.
    n_values : int
        Length of its vectors.

    Raises
    ------
    ConfigError
        Graph and manifest do not agree.
    """

    def __init__(self, loaded: LoadedPair) -> None:
        spec = loaded.manifest.audio
        self.sample_rate, self.window = spec.sample_rate, spec.context + spec.window
        self._fill = spec.fill
        self._graph = WindowGraph(loaded.audio, [(("output",), spec.output)])
        (values,), _ = self._graph.try_out()
        self.n_values = int(values.shape[-1]) if values.ndim else 0

    def __call__(self, samples: Float32, onset: int, offset: int) -> Float32:
        """Return the unit vector of a segment, float32[n_values].

        Parameters
        ----------
        samples : float32[n_samples]
            Sound at the encoder's rate that holds the segment.
        onset, offset : int
            The segment within it.

        Raises
        ------
        StageError
            The graph's numbers are not finite.
        """
        window = fit_window(samples, onset, offset, self.window, self._fill)
        (values,) = self._graph.run(window)
        if not is_finite(values):
            raise StageError("the encoder of audio gives numbers that are not finite")
        return _unit_vector(values)


class EncodesText:
    """Text encoder of a manifest.

    Parameters
    ----------
    loaded : LoadedPair
        The manifest.

    Raises
    ------
    ConfigError
        The library tokenizers is not installed, a file is not what it should be, or
        graph and manifest do not agree.
    """

    def __init__(self, loaded: LoadedPair) -> None:
        self._loaded = loaded
        spec = loaded.manifest.text
        self._tokenizer = _open_tokenizer(loaded)
        where = loaded.problem(("text", "graph"), f"'{loaded.text_graph}'")
        self._session = open_session(
            loaded.text_graph, where, is_trusted=loaded.text_is_trusted
        )
        self._types = self._checked_types()
        self._constants = {each.tensor: each.array() for each in spec.constants}
        try:
            self.n_values = len(self(_TRIED))
        except ConfigError:
            raise
        except Exception as error:  # onnxruntime has no common error class
            reason = " ".join(str(error).split())[-200:]
            raise ConfigError(
                loaded.problem(("text",), f"the graph takes no tokens ({reason})")
            ) from error

    def __call__(self, text: str) -> Float32:
        """Return the unit vector of a text, float32[n_values].

        Raises
        ------
        ConfigError
            The tokenizer finds no token in it, or the graph's numbers are not finite.
        """
        spec = self._loaded.manifest.text
        encoded = self._tokenizer.encode(text)
        ids = list(encoded.ids)[: spec.longest]
        if not ids:
            raise ConfigError(
                self._loaded.problem(
                    ("text", "tokenizer"), f"finds no token in '{text}'"
                )
            )
        n_filled = max(0, (spec.length or 0) - len(ids))
        rows = {
            spec.ids: ids + [spec.fill_id] * n_filled,
            spec.mask: [1] * len(ids) + [0] * n_filled,
            spec.types: [0] * (len(ids) + n_filled),
        }
        feed = {
            name: np.array([row], self._types[name])
            for name, row in rows.items()
            if name is not None
        }
        (values,) = self._session.run([spec.output], {**self._constants, **feed})
        if not is_finite(values):
            sentence = f"the graph gives numbers that are not finite for '{text}'"
            raise ConfigError(self._loaded.problem(("text", "graph"), sentence))
        return _unit_vector(values)

    def _checked_types(self) -> dict[str, Any]:
        """Return the type of each input of tokens; raise where tensors differ."""
        loaded, spec = self._loaded, self._loaded.manifest.text
        inputs = {tensor.name: tensor.type for tensor in self._session.get_inputs()}
        outputs = {tensor.name: tensor.type for tensor in self._session.get_outputs()}
        problems, types = [], {}
        for key in ("ids", "mask", "types"):
            name = getattr(spec, key)
            if name is None:
                continue
            loc: Location = ("text", key)
            if name not in inputs:
                problems.append(loaded.problem(loc, no_tensor("input", name, inputs)))
            elif inputs[name] not in _INTEGERS:
                sentence = f"input '{name}' is a {inputs[name]}, tokens are integers"
                problems.append(loaded.problem(loc, sentence))
            else:
                types[name] = _INTEGERS[inputs[name]]
        given = {spec.ids, spec.mask, spec.types, *(c.tensor for c in spec.constants)}
        left = [repr(name) for name in inputs if name not in given]
        if left:
            problems.append(
                loaded.problem(
                    ("text",),
                    f"the graph has the input{'s' * (len(left) > 1)} {', '.join(left)}"
                    ", which the manifest does not give: name it as 'ids', 'mask' or "
                    "'types', or add it under 'constants'",
                )
            )
        if spec.output not in outputs:
            sentence = no_tensor("output", spec.output, outputs)
            problems.append(loaded.problem(("text", "output"), sentence))
        elif outputs[spec.output] != _FLOAT:
            sentence = (
                f"output '{spec.output}' is a {outputs[spec.output]}, no {_FLOAT}"
            )
            problems.append(loaded.problem(("text", "output"), sentence))
        if problems:
            raise ConfigError(problems)
        return types


class Names:
    """Vectors of the texts that a sound can be named by.

    Parameters
    ----------
    loaded : LoadedPair
        The manifest.
    encode : EncodesText
        Its text encoder.
    names : sequence of str
        Names that can be given.

    Attributes
    ----------
    names : tuple of str
        The names.
    """

    def __init__(
        self, loaded: LoadedPair, encode: EncodesText, names: Sequence[str]
    ) -> None:
        manifest = loaded.manifest
        self.names = tuple(names)
        texts = [manifest.template.replace("{}", name) for name in names]
        rows = [encode(text) for text in (*texts, *manifest.background)]
        self._vectors = np.stack(rows).astype(np.float64)
        self._scale = manifest.scale

    def posteriors(self, vector: Float32) -> NDArray[np.float64]:
        """Return the probability of each name, float64[n_names].

        It is a softmax of scaled cosines over names and background texts.
        """
        logits = self._scale * (self._vectors @ vector.astype(np.float64))
        powers = np.exp(logits - logits.max())
        shares: NDArray[np.float64] = powers / powers.sum()
        return shares[: len(self.names)]


def check_pair(audio: EncodesAudio, text: EncodesText, loaded: LoadedPair) -> None:
    """Raise ConfigError unless the vectors of both encoders have the same length."""
    if audio.n_values != text.n_values:
        raise ConfigError(
            loaded.problem(
                ("audio", "output"),
                f"has vectors of {audio.n_values} values, those of the text have "
                f"{text.n_values}: the two do not belong together",
            )
        )


def fit_window(
    samples: Float32, onset: int, offset: int, length: int, fill: Fill
) -> Float32:
    """Return the window by which a segment is heard, float32[length].

    Parameters
    ----------
    samples : float32[n_samples]
        Sound; what lies outside of it is silence.
    onset, offset : int
        The segment; of one that is longer than the window its middle is heard.
    length : int
        Samples of the window.
    fill : {'around', 'repeat', 'silence'}
        What fills the window beside a shorter segment.
    """
    if fill == "around" or offset - onset >= length:
        onset = (onset + offset - length) // 2
        offset = onset + length
    found = np.zeros(offset - onset, np.float32)
    low, high = max(0, onset), min(len(samples), offset)
    if low < high:
        found[low - onset : high - onset] = samples[low:high]
    if fill == "repeat" and len(found):
        return np.resize(found, length)
    return np.pad(found, (0, length - len(found)))


def resample_whole(samples: Float32, in_rate: int, out_rate: int) -> Float32:
    """Return all of a sound at another rate, float32[n_samples]."""
    resampler = Resampler(in_rate, out_rate)
    parts = [*resampler.process(Block(0, samples[:, None])), *resampler.flush()]
    found = [part.samples[:, 0] for part in parts if isinstance(part, Block)]
    return np.concatenate([np.zeros(0, np.float32), *found])


def _unit_vector(values: NDArray[Any]) -> Float32:
    """Return the mean over all axes but the last, scaled to length 1."""
    rows = values.astype(np.float32).reshape(-1, values.shape[-1])
    mean = rows.mean(axis=0, dtype=np.float64)
    unit: Float32 = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return unit


def _open_tokenizer(loaded: LoadedPair) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "text needs tokenizers, which is not installed: "
            "pip install 'neurovocal[text]'"
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(loaded.tokenizer))
    except Exception as error:  # the library raises Exception itself
        reason = " ".join(str(error).split())
        raise ConfigError(
            loaded.problem(
                ("text", "tokenizer"),
                f"'{loaded.tokenizer}' is no tokenizer of the library tokenizers "
                f"({reason})",
            )
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(loaded.manifest.text.longest)
    return tokenizer

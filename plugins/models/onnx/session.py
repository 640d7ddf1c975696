"""ONNX graphs of a bundle: sessions, checks of their tensors, golden vectors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Event as Flag
from threading import Timer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import BuildContext, Bundle, BundleError, Float32
from neurovocal.engine.support.platform import total_memory_bytes
from neurovocal.plugins.models.onnx.channels import (
    CHANNELS,
    Shape,
    add_channel,
    channel_axes,
    with_channels,
    without_channel,
)
from neurovocal.plugins.models.onnx.scan import forbidden_parts
from neurovocal.plugins.storage.npz import read_npz

_ENTRIES = {
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
    "session.use_env_allocators": "1",
}
_ZEROS = np.zeros(2**15, np.float32)
_MOST_S = 30.0  # for the golden frames; shipped bundles take a tenth of a second
_MOST_BYTES = 4 * 2**30
# What ONNX Runtime says of graphs that are newer than itself, in all of its versions.
_NEWER = (
    (
        "format (IR version)",
        re.compile(r"unsupported model IR version: (\d+)(?:, max\D*(\d+))?", re.I),
    ),
    (
        "operators (opset)",
        re.compile(r"opset (\d+) is under.*?(?:till opset (\d+)|$)", re.I),
    ),
)
_NOISE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+\.(?:cc|h):\d+ \S* ?")


class Graph:
    """One ONNX graph, run on one thread that does not spin while idle.

    A graph may compute several channels in one call: then all of its tensors have an
    axis of channels more (`channel_axes`). `run` gives it one channel. To run an
    array, keep one state for all channels and hand it over with the rows::

        zeros = {"h1": np.zeros((n_channels, *spec.state["h1"]), np.float32)}
        logits, state = graph.run_channels({"frames": frames, **zeros})
        logits, state = graph.run_channels({"frames": more, "h1": state})

    with `frames` float32[n_channels, n_frames, n_bins] and `logits`
    float32[n_channels, n_frames, n_units]. To reset the state of one channel, set its
    row to zeros. Graphs without that axis are run once per channel.

    Parameters
    ----------
    bundle : Bundle
        Bundle that the graph belongs to.
    name : str
        File name within the bundle.
    inputs, outputs : mapping of str to tuple
        Tensors that docs/reference/bundle.md specifies, with their shapes for one
        channel; None stands for a length that must be free. All are float32.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        The open graph.
    inputs, output_shapes : dict of str to tuple
        The shapes given.
    axes : dict of str to int
        Axis of channels of each tensor that has one.
    has_channels : bool
        One call computes all channels of `run_channels`. A channel's results may
        differ from those of `run` in their last bits.

    Raises
    ------
    BundleError
        The file is not an ONNX graph, contains parts that a bundle must not
        contain, or has other tensors.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
    ) -> None:
        self.name = name
        self.where = f"bundle '{bundle.folder}': {name}"
        self.outputs = list(outputs)
        self.inputs, self.output_shapes = dict(inputs), dict(outputs)
        self.session = open_session(bundle.path(name), self.where)
        found = self.session.get_inputs(), self.session.get_outputs()
        _check_tensors(self.where, "input", found[0], inputs)
        _check_tensors(self.where, "output", found[1], outputs)
        axes = channel_axes([*found[0], *found[1]], {**inputs, **outputs})
        self.axes, self.has_channels = axes, bool(axes)
        self._in_axes = {name: axes[name] for name in inputs if name in axes}
        self._out_axes = [axes.get(name) for name in outputs]
        lacking = [n for n, shape in {**inputs, **outputs}.items() if shape]
        lacking = [name for name in lacking if name not in axes]
        if axes and lacking:
            raise BundleError(
                f"{self.where}: {', '.join(lacking)} must have a length {CHANNELS}, "
                "as its other tensors do: export it as docs/reference/bundle.md says"
            )

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[Float32]:
        """Return the outputs in the order given to the constructor, of one channel."""
        results: list[Float32]
        if not self.has_channels:
            results = self.session.run(self.outputs, feed)
            return results
        results = self.session.run(self.outputs, add_channel(feed, self._in_axes))
        return without_channel(results, self._out_axes)

    def run_channels(self, feed: Mapping[str, NDArray[Any]]) -> list[Float32]:
        """Return the outputs of several channels.

        Parameters
        ----------
        feed : mapping of str to float32[n_channels, ...]
            Inputs of all channels: those of one channel, one after the other.

        Returns
        -------
        list of float32[n_channels, ...]
            In the order given to the constructor.
        """
        if not self.has_channels:
            n_channels = len(next(iter(feed.values())))
            each = [
                self.run({name: values[channel] for name, values in feed.items()})
                for channel in range(n_channels)
            ]
            return [np.stack(parts) for parts in zip(*each, strict=True)]
        moved = {
            name: np.ascontiguousarray(np.moveaxis(values, 0, self._in_axes[name]))
            for name, values in feed.items()
        }
        results: list[Float32] = self.session.run(self.outputs, moved)
        axes = [axis or 0 for axis in self._out_axes]
        return [
            np.moveaxis(result, axis, 0)
            for result, axis in zip(results, axes, strict=True)
        ]

    def try_run(self, feed: Mapping[str, NDArray[Any]]) -> list[Float32]:
        """Return the same as `run`; used before a graph has been checked.

        Raises
        ------
        BundleError
            The graph fails, needs too much memory, or takes more than 30 s.
        """
        import onnxruntime as ort

        limit = ort.RunOptions()
        expired = Flag()

        def stop() -> None:
            expired.set()
            limit.terminate = True

        timer = Timer(_MOST_S, stop)
        timer.daemon = True
        timer.start()
        try:
            inputs = add_channel(feed, self._in_axes)
            results: list[Float32] = self.session.run(self.outputs, inputs, limit)
            return without_channel(results, self._out_axes)
        except Exception as error:  # onnxruntime has no common error class
            if expired.is_set():
                raise BundleError(
                    f"{self.where} takes more than {_MOST_S:.0f} s for the golden "
                    "frames: it is too slow for this machine, or it never ends"
                ) from error
            raise BundleError(
                f"{self.where} cannot be run on the golden frames ({_reason(error)})"
            ) from error
        finally:
            timer.cancel()


def open_session(
    path: Path, where: str | None = None, *, is_trusted: bool = False
) -> Any:
    """Open an ONNX file on one thread, without spinning or external data.

    All sessions of the process together have a bounded memory.

    Parameters
    ----------
    path : Path
        The file.
    where : str, optional
        Name in errors; default: the path.
    is_trusted : bool
        Whether constants may be folded: computed now, in any time that they take.

    Returns
    -------
    onnxruntime.InferenceSession

    Raises
    ------
    BundleError
        It is not an ONNX graph, or holds external data, random or custom operators.
    """
    import onnxruntime as ort

    ort.disable_telemetry_events()  # no reports to Microsoft
    where = where or f"'{path}'"
    content = graph_content(path, where)
    _limit_memory()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, not printed
    for entry, value in _ENTRIES.items():
        options.add_session_config_entry(entry, value)
    try:
        return ort.InferenceSession(
            content,
            options,
            ["CPUExecutionProvider"],
            disabled_optimizers=None if is_trusted else ["ConstantFolding"],
        )
    except Exception as error:  # onnxruntime has no common error class
        raise BundleError(
            f"{where} is no ONNX graph that can run ({_reason(error)})"
        ) from error


def graph_content(path: Path, where: str) -> bytes:
    """Return the content of an ONNX file, which has only parts that a bundle may have.

    Raises
    ------
    BundleError
        It is no ONNX file, or has other parts; `where` names it.
    """
    try:
        content = path.read_bytes()
        forbidden = forbidden_parts(content)
    except OSError as error:
        raise BundleError(
            f"{where} cannot be read: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise BundleError(f"{where} is no readable ONNX graph ({error})") from error
    if forbidden:
        raise BundleError(
            f"{where} contains {' and '.join(forbidden)}, which no bundle may: export "
            "it as docs/reference/bundle.md says"
        )
    return content


@lru_cache(maxsize=1)
def _limit_memory() -> None:
    """Bound the memory of all sessions, which share one allocator."""
    import onnxruntime as ort

    most = min(_MOST_BYTES, total_memory_bytes() // 2)
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    arena = ort.OrtArenaCfg({"max_mem": most, "arena_extend_strategy": 1})
    ort.create_and_register_allocator(memory, arena)


class Golden:
    """The golden vectors of a bundle.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    name : str
        Input rows: `frames` of the front end, or `excess` of a detector's network.

    Raises
    ------
    BundleError
        `golden.npz` is missing, unreadable or without fitting input rows.
    """

    def __init__(self, bundle: Bundle, name: str = "frames") -> None:
        manifest = bundle.manifest
        self._tolerance = manifest.golden_tolerance
        path = bundle.path(manifest.golden)
        self._where = f"golden vectors '{path}'"
        self._arrays = read_npz(path, "golden vectors", name)
        self.frames = self._arrays[name]
        if name == "frames":
            maker, n_bins = "front end makes", manifest.front_end.n_bins
        else:
            assert manifest.detector_network is not None
            maker, n_bins = "detector has", manifest.detector_network.n_bands
        if self.frames.ndim != 2 or self.frames.shape[1] != n_bins:
            raise BundleError(
                f"{self._where} hold {name} of shape {list(self.frames.shape)}, the "
                f"{maker} {n_bins} bins"
            )
        if len(self.frames) < 2:
            raise BundleError(f"{self._where} hold fewer than two frames")

    def __getitem__(self, name: str) -> Float32:
        if name not in self._arrays:
            raise BundleError(f"{self._where} hold no '{name}'")
        return self._arrays[name]

    def check(self, graph: Graph, name: str, computed: Float32) -> float:
        """Compare an output with the expected one; return the largest difference.

        The difference is relative to ``max(1, |expected|)``.

        Raises
        ------
        BundleError
            Another shape, or a difference above the manifest's tolerance.
        """
        expected = self[name]
        if expected.shape != computed.shape:
            raise BundleError(
                f"{graph.where} gives '{name}' of shape {list(computed.shape)}, "
                f"golden vectors have {list(expected.shape)}"
            )
        with np.errstate(invalid="ignore"):
            difference = np.abs(computed - expected) / np.maximum(1, np.abs(expected))
        largest = float(difference.max(initial=0.0))
        if not largest <= self._tolerance:  # catches NaN, too
            raise BundleError(
                f"{graph.where} does not reproduce the golden '{name}': the largest "
                f"difference is {largest:.2g}, {self._tolerance:.2g} is allowed; train "
                "or export the bundle again"
            )
        return largest


def bundle_problems(context: BuildContext, model: str) -> Iterator[str]:
    """Yield a sentence for each reason why the bundle does not fit the model.

    Parameters
    ----------
    context : BuildContext
        Values that it does not have yet (rate, shape of frames) are not compared.
    model : {'classifier', 'rnn_rbm'}
        Section of the manifest that the model needs.
    """
    bundle = context.bundle
    if bundle is None:
        yield f"model '{model}' needs a bundle: name one under 'bundle'"
        return
    if getattr(bundle.manifest, model) is None:
        yield (
            f"bundle '{bundle.folder}' has no {model}: name a bundle that has one, or "
            "leave out this model"
        )
    front_end = bundle.manifest.stated_front_end
    if front_end is None:
        return
    rate = context.info.sample_rate if context.info else front_end.sample_rate
    if rate != front_end.sample_rate:
        yield (
            f"bundle '{bundle.folder}' was trained at {front_end.sample_rate} Hz, the "
            f"stream has {rate} Hz"
        )
    for name in ("n_bins", "hop_length", "frame_length"):
        found, trained = getattr(context, name), getattr(front_end, name)
        if found and found != trained:
            yield (
                f"bundle '{bundle.folder}' was trained on frames with {name} "
                f"{trained}, the features make {found}"
            )


def require_bundle(context: BuildContext, model: str) -> Bundle:
    """Return the bundle of `context`, after checking that it fits.

    Raises
    ------
    BundleError
        It does not fit; with all reasons.
    """
    problems = list(bundle_problems(context, model))
    if problems or context.bundle is None:
        raise BundleError(problems)
    return context.bundle


def finite(values: Float32) -> Float32:
    """Return `values` with 0 in place of numbers that are not finite.

    One such number in a recurrent state would make all later outputs NaN.
    """
    if is_finite(values):
        return values
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def is_finite(values: Float32) -> bool:
    """Return True if all numbers are finite; float32 of any shape."""
    size = values.size
    # Zero times any finite number is zero: one product is faster than two reductions.
    zeros = _ZEROS[:size] if size <= len(_ZEROS) else np.zeros(size, np.float32)
    return bool(np.vdot(values, zeros) == 0.0)


def _check_tensors(
    where: str, role: str, tensors: Sequence[Any], promised: Mapping[str, Shape]
) -> None:
    found = {tensor.name: tensor for tensor in tensors}
    missing = sorted(set(promised) - set(found))
    surplus = sorted(set(found) - set(promised)) if role == "input" else []
    if missing or surplus:
        lacks = f"lacks the {role} {', '.join(missing)}" if missing else ""
        has = f"has an unknown {role} {', '.join(surplus)}" if surplus else ""
        raise BundleError(f"{where} {' and '.join(filter(None, (lacks, has)))}")
    for name, shape in promised.items():
        tensor = found[name]
        if tensor.type != "tensor(float)":
            raise BundleError(
                f"{where}: {role} '{name}' is a {tensor.type}, not float32"
            )
        if not (_fits(tensor.shape, shape) or _fits_channels(tensor.shape, shape)):
            raise BundleError(
                f"{where}: {role} '{name}' has shape {_shape_text(tensor.shape)}, "
                f"the manifest promises {_shape_text(shape)}"
            )


def _fits(found: Sequence[int | str | None], promised: Shape) -> bool:
    """Return True if a graph's shape, with names for free lengths, is as specified."""
    return len(found) == len(promised) and all(
        not isinstance(length, int) or length == wanted
        for length, wanted in zip(found, promised, strict=True)
    )


def _fits_channels(found: Sequence[int | str | None], promised: Shape) -> bool:
    """Return True if a graph's shape is as specified, with an axis of channels more."""
    return bool(promised) and _fits(found, with_channels(promised))


def _shape_text(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(n) if isinstance(n, int) else 'any' for n in shape)}]"


def _reason(error: BaseException) -> str:
    """Return what ONNX Runtime says, in the words of a user where they are known."""
    text = " ".join(str(error).split())
    if "Available memory of" in text or "Failed to allocate memory" in text:
        return "it needs more memory than all graphs together may have"
    for what, pattern in _NEWER:
        if found := pattern.search(text):
            return _newer(what, *found.groups())
    text = _NOISE.sub("", text) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _newer(what: str, needed: str, most: str | None) -> str:
    limit = f", which reads {most} at most" if most else ""
    return (
        f"its {what} is {needed}, newer than ONNX Runtime {version('onnxruntime')}"
        f"{limit}: update the package onnxruntime to one that reads {needed}"
    )

"""ONNX graphs of a discovery's autoencoder, and how unusual each segment is."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.discovery.segments import Segments, SourceRecording
from neurovocal.models.discovery.vae import Vae, VaeTask
from neurovocal.models.toolkit.files import write_file
from neurovocal.models.toolkit.graph_writer import GraphWriter
from neurovocal.models.toolkit.onnx_session import Session

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_TOLERANCE = 1e-4
_CHECKED = 64  # patches


def encoder_graph(model: Vae, shape: tuple[int, int]) -> Any:
    """Build the graph from patches to latent codes.

    Its input `patches` is float32[N, n_columns, n_bins] of levels from 0 to 1, its
    output `latent` the mean of each patch's Gaussian, float32[N, n_latent].
    """
    g = GraphWriter("encoder")
    flat = g.op("Flatten", "patches", axis=1)
    hidden = _layers(g, model.encoder, flat, "encoder")
    _linear(g, model.mean, hidden, "mean", out="latent")
    return g.build(
        {"patches": ["N", *shape]}, {"latent": ["N", model.mean.out_features]}
    )


def decoder_graph(model: Vae, shape: tuple[int, int]) -> Any:
    """Build the graph from latent codes to patches.

    Its input is `latent`, its output `patches`, both as those of `encoder_graph`.
    """
    g = GraphWriter("decoder")
    flat = _layers(g, model.decoder, "latent", "decoder")
    g.op("Reshape", flat, g.constant("shape", [-1, *shape]), out="patches")
    return g.build(
        {"latent": ["N", model.mean.out_features]}, {"patches": ["N", *shape]}
    )


def _layers(g: GraphWriter, layers: nn.Sequential, name: str, prefix: str) -> str:
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            name = _linear(g, layer, name, f"{prefix}{number}")
        else:
            name = g.op("Relu", name)
    return name


def _linear(
    g: GraphWriter, layer: nn.Linear, name: str, prefix: str, out: str | None = None
) -> str:
    weight = g.constant(f"{prefix}_weight", layer.weight.detach().numpy().T.copy())
    bias = g.constant(f"{prefix}_bias", layer.bias)
    return g.op("Add", g.op("MatMul", name, weight), bias, out=out)


def write_autoencoder(
    folder: Path, task: VaeTask, patches: NDArray[np.uint8]
) -> dict[str, float]:
    """Write ``encoder.onnx`` and ``decoder.onnx`` of a trained autoencoder.

    Returns
    -------
    dict
        Largest difference from torch of each graph's output, and of patches that are
        computed one by one from those computed together (``..._single``).

    Raises
    ------
    BundleError
        A difference exceeds the tolerance.
    """
    shape = patches.shape[1], patches.shape[2]
    model = task.module
    levels = np.asarray(patches[:_CHECKED], np.float32) / 255.0
    with torch.no_grad():
        latent = model.encode(torch.from_numpy(levels.reshape(len(levels), -1)))[0]
        decoded = model.decoder(latent)
    expected = {
        ENCODER: ("patches", levels, "latent", latent.numpy()),
        DECODER: ("latent", latent.numpy(), "patches", decoded.numpy()),
    }
    graphs = {
        ENCODER: encoder_graph(model, shape),
        DECODER: decoder_graph(model, shape),
    }
    found: dict[str, float] = {}
    for name, (given, rows, wanted, values) in expected.items():
        path = folder / name
        write_file(path, graphs[name].SerializeToString())
        session = Session(path)
        whole = session.run(**{given: rows})[wanted]
        single = [session.run(**{given: row[None]})[wanted] for row in rows]
        found[wanted] = _difference(whole.reshape(values.shape), values)
        found[f"{wanted}_single"] = _difference(np.concatenate(single), whole)
    worst = max(found, key=lambda key: found[key])
    if found[worst] > _TOLERANCE:
        raise BundleError(
            f"'{folder}': torch and ONNX Runtime differ in {worst} by {found[worst]:g}"
        )
    return found


def _difference(found: Float32, expected: Float32) -> float:
    scale = np.maximum(1.0, np.abs(expected))
    return float((np.abs(found - expected) / scale).max(initial=0.0))


def outlier_scores(task: VaeTask, patches: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how badly the autoencoder accounts for each patch, float64[n_segments].

    It is the loss of the patch without draws, squared error and divergence, as the
    number of median deviations above the median of all.
    """
    losses = []
    with torch.no_grad():
        for rows in np.array_split(np.arange(len(patches)), len(patches) // 512 + 1):
            losses.append(_losses(task, patches, rows).numpy())
    loss = np.concatenate(losses).astype(np.float64)
    middle = np.median(loss)
    spread = np.median(np.abs(loss - middle))
    return (loss - middle) / max(float(spread), 1e-9)


def _losses(task: VaeTask, patches: NDArray[np.uint8], rows: NDArray[Any]) -> Tensor:
    values = np.asarray(patches[rows], np.float32) / 255.0
    return task.losses(torch.from_numpy(values.reshape(len(rows), -1)), sampled=False)


def outlier_table(
    scores: NDArray[np.float64],
    recordings: Sequence[SourceRecording],
    segments: Segments,
) -> bytes:
    """Return the segments as CSV, the most unusual first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "channel", "onset_s", "offset_s", "outlier"])
    for k in np.argsort(-scores, kind="stable"):
        recording = recordings[int(segments.recording[k])]
        rate = recording.sample_rate
        writer.writerow(
            [
                recording.path,
                int(segments.channel[k]),
                f"{segments.onset[k] / rate:.6f}",
                f"{segments.offset[k] / rate:.6f}",
                f"{scores[k]:.3f}",
            ]
        )
    return text.getvalue().encode("utf-8", "surrogateescape")

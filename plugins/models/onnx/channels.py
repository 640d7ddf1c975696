"""Axis of channels in the tensors of a graph, as docs/reference/bundle.md says."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

from neurovocal.engine import Float32

Shape: TypeAlias = tuple[int | None, ...]  # None: any length
CHANNELS = "C"  # name of the number of channels in the shapes of a graph


def with_channels(shape: Shape) -> Shape:
    """Return the shape for several channels: the second axis of rows, else the first.

    Rows are tensors whose first length, their number, is free.
    """
    at = 1 if shape[0] is None else 0
    return (*shape[:at], None, *shape[at:])


def channel_axes(tensors: Sequence[Any], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Return the axis of channels of each tensor that has one.

    Parameters
    ----------
    tensors : sequence
        Inputs and outputs of an ONNX Runtime session.
    shapes : mapping of str to tuple
        Shapes for one channel.
    """
    return {
        tensor.name: tensor.shape.index(CHANNELS)
        for tensor in tensors
        if tensor.name in shapes
        and len(tensor.shape) == len(shapes[tensor.name]) + 1
        and CHANNELS in tensor.shape
    }


def add_channel(
    feed: Mapping[str, NDArray[Any]], axes: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """Return views of the inputs of one channel, with an axis of channels."""
    added = dict(feed)
    for name, axis in axes.items():
        added[name] = added[name][:, None] if axis else added[name][None]
    return added


def without_channel(
    results: Sequence[Float32], axes: Sequence[int | None]
) -> list[Float32]:
    """Return views of the outputs of one channel, without the axis of channels."""
    return [
        result if axis is None else result[:, 0] if axis else result[0]
        for result, axis in zip(results, axes, strict=True)
    ]

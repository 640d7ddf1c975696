"""ONNX graphs, built node by node from standard operators.

A graph built by hand follows docs/reference/bundle.md exactly, does not depend on the
version of torch's exporters, and takes milliseconds to write.
"""

from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from neurovocal.plugins.models.onnx.channels import CHANNELS

__all__ = ["CHANNELS", "GraphWriter", "Shape", "value_info"]

OPSET = 17
IR_VERSION = 8
Shape: TypeAlias = list[int | str]


class GraphWriter:
    """Collect the nodes and constants of a graph; tensors are named by strings."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._count = 0

    def constant(self, name: str, value: Tensor | NDArray[Any] | list[int]) -> str:
        """Store a constant and return its name; lists become int64."""
        if isinstance(value, Tensor):
            value = value.detach().numpy()
        array = np.asarray(value, np.int64) if isinstance(value, list) else value
        self._constants[name] = array
        return name

    def axes(self, *axes: int) -> str:
        """Store integers, such as the axes of a reduction, and return the name."""
        name = "ints_" + "_".join(str(a).replace("-", "m") for a in axes)
        return self.constant(name, list(axes))

    def op(
        self, kind: str, *inputs: str, out: str | None = None, **options: Any
    ) -> str:
        """Append a node with one output and return the output's name."""
        return self.ops(kind, *inputs, outs=[out or self.unique_name(kind)], **options)[
            0
        ]

    def ops(
        self, kind: str, *inputs: str, outs: list[str], **options: Any
    ) -> list[str]:
        """Append a node with several outputs; an empty name discards an output."""
        self.nodes.append(helper.make_node(kind, list(inputs), outs, **options))
        return outs

    def unique_name(self, stem: str) -> str:
        """Return a tensor name that is not used yet."""
        self._count += 1
        return f"{self._name}_{stem.lower()}_{self._count}"

    def build(self, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> Any:
        """Build the model and check it against the ONNX specification."""
        graph = helper.make_graph(
            self.nodes,
            self._name,
            [value_info(name, shape) for name, shape in inputs.items()],
            [value_info(name, shape) for name, shape in outputs.items()],
            [
                numpy_helper.from_array(array, name)
                for name, array in self._constants.items()
            ],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="neurovocal",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def value_info(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> Any:
    """Describe the type and shape of a graph's input or output."""
    return helper.make_tensor_value_info(name, kind, shape)

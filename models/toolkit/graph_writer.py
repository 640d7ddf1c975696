"""ONNX graphs written by hand with standard operators, node by node.

A hand-written graph says exactly what docs/bundle.md promises, whatever torch's
exporters do in the next version, and is made in milliseconds.
"""

from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET = 17
IR_VERSION = 8
Shape: TypeAlias = list[int | str]


class GraphWriter:
    """Collects nodes and constants; every method returns a tensor's name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._count = 0

    def constant(self, name: str, value: Tensor | NDArray[Any] | list[int]) -> str:
        """Store a constant once; lists are int64, the rest keeps its type."""
        if isinstance(value, Tensor):
            value = value.detach().numpy()
        array = np.asarray(value, np.int64) if isinstance(value, list) else value
        self._constants[name] = array
        return name

    def axes(self, *axes: int) -> str:
        """Store an int64 list, such as the axes of a reduction."""
        name = "ints_" + "_".join(str(a).replace("-", "m") for a in axes)
        return self.constant(name, list(axes))

    def op(
        self, kind: str, *inputs: str, out: str | None = None, **options: Any
    ) -> str:
        """Append a node with one output."""
        return self.ops(kind, *inputs, outs=[out or self.new(kind)], **options)[0]

    def ops(
        self, kind: str, *inputs: str, outs: list[str], **options: Any
    ) -> list[str]:
        """Append a node with several outputs; an empty name drops one."""
        self.nodes.append(helper.make_node(kind, list(inputs), outs, **options))
        return outs

    def new(self, stem: str) -> str:
        """Invent a name that no other tensor has."""
        self._count += 1
        return f"{self._name}_{stem.lower()}_{self._count}"

    def model(self, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> Any:
        """Finish the graph and check it against the ONNX specification."""
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
    """Type and shape of a tensor at the edge of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)

"""Causal detector network with explicit state, and its ONNX graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurovocal.models.classifier.graph import write_encoder, write_linear
from neurovocal.models.classifier.network import ConvGruEncoder
from neurovocal.models.toolkit.graph_writer import GraphWriter, Shape
from neurovocal.plugins.detectors.band_excess import N_BANDS

# The network gets `clip(excess, LOW_DB, HIGH_DB) / SCALE_DB`: what is louder than 50 dB
# above the floor is a sound, and below -10 dB lies the depth of the silence alone.
LOW_DB, HIGH_DB, SCALE_DB = -10.0, 50.0, 20.0


class DetectorNetwork(nn.Module):
    """A causal convolution over a few rows, a GRU and a read-out: one logit per row.

    Parameters
    ----------
    n_hidden : int
        Filters of the convolution, and units of the GRU.
    kernel_length : int
        Rows that the convolution covers.

    Attributes
    ----------
    shapes : dict of str to list of int
        Shape of each state tensor, without the batch dimension.
    """

    def __init__(self, n_hidden: int, kernel_length: int) -> None:
        super().__init__()
        self.encoder = ConvGruEncoder(N_BANDS, n_hidden, 1, kernel_length, 0.0)
        self.readout = nn.Linear(n_hidden, 1)
        self.shapes: dict[str, list[int]] = self.encoder.shapes

    def initial_state(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Return the state at the start of a stream: zeros."""
        return {
            name: torch.zeros(batch_size, *shape) for name, shape in self.shapes.items()
        }

    def forward(
        self, excess: Tensor, state: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits of consecutive rows.

        Parameters
        ----------
        excess : float32[batch, T, n_bands]
            In dB.
        state : mapping, optional
            State after the rows before; zeros by default.

        Returns
        -------
        logits : float32[batch, T]
        state : dict
            State after the last row.
        """
        before = self.initial_state(len(excess)) if state is None else state
        scaled = excess.clamp(LOW_DB, HIGH_DB) / SCALE_DB
        encoded, after = self.encoder(scaled, before)
        return self.readout(encoded)[..., 0], after


def detector_graph(model: DetectorNetwork) -> Any:
    """Build the graph of ``detector.onnx`` (docs/bundle.md)."""
    g = GraphWriter("detector")
    low = g.constant("low_db", np.array(LOW_DB, np.float32))
    high = g.constant("high_db", np.array(HIGH_DB, np.float32))
    scale = g.constant("scale_db", np.array(SCALE_DB, np.float32))
    scaled = g.op("Div", g.op("Clip", "excess", low, high), scale)
    encoded = write_encoder(g, model.encoder, scaled)
    logits = g.op("Squeeze", write_linear(g, model.readout, encoded), g.axes(1))
    g.op("Sigmoid", logits, out="scores")
    states: dict[str, Shape] = {name: [*shape] for name, shape in model.shapes.items()}
    return g.build(
        {"excess": ["T", N_BANDS], **states},
        {"scores": ["T"], **{f"{name}_next": shape for name, shape in states.items()}},
    )

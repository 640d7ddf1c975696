"""Causal network that corrects the score of `bands`, and its ONNX graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurovocal.models.classifier.graph import write_encoder, write_linear
from neurovocal.models.classifier.network import ConvGruEncoder
from neurovocal.models.toolkit.graph_writer import CHANNELS, GraphWriter, Shape
from neurovocal.plugins.detectors.band_excess import N_BANDS

# The network gets levels and score within -12 and 32 dB: above lies loudness alone,
# below the depth of the silence.
LOW_DB, HIGH_DB, SCALE_DB = -12.0, 32.0, 12.0
# Largest correction: a sound that `bands` masks or does not hear at all counts as 0 dB,
# and a detector that follows needs up to 13 dB.
MOST_DB = 12.0
_OUTPUT_DB = 3.0


class DetectorNetwork(nn.Module):
    """A causal convolution over a few rows, a GRU and a read-out: one value per row.

    A network that has not been trained corrects nothing.

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
        self.encoder = ConvGruEncoder(N_BANDS + 1, n_hidden, 1, kernel_length, 0.0)
        self.readout = nn.Linear(n_hidden, 1)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        self.shapes: dict[str, list[int]] = self.encoder.shapes

    def initial_state(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Return the state at the start of a stream: zeros."""
        return {
            name: torch.zeros(batch_size, *shape) for name, shape in self.shapes.items()
        }

    def forward(
        self,
        levels: Tensor,
        scores: Tensor,
        state: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the corrections of consecutive rows.

        Parameters
        ----------
        levels : float32[batch, T, n_bands]
            In dB above the usual noise.
        scores : float32[batch, T]
            Scores of `bands` in dB.
        state : mapping, optional
            State after the rows before; zeros by default.

        Returns
        -------
        corrections : float32[batch, T]
            In dB.
        state : dict
            State after the last row.
        """
        before = self.initial_state(len(levels)) if state is None else state
        rows = torch.cat((levels, scores[..., None]), dim=-1)
        encoded, after = self.encoder(rows.clamp(LOW_DB, HIGH_DB) / SCALE_DB, before)
        corrections = _OUTPUT_DB * self.readout(encoded)[..., 0]
        return corrections.clamp(-MOST_DB, MOST_DB), after


def detector_graph(model: DetectorNetwork) -> Any:
    """Build the graph of ``detector.onnx`` for any number of channels."""
    g = GraphWriter("detector")

    def constant(name: str, value: float) -> str:
        return g.constant(name, np.array(value, np.float32))

    column = g.op("Unsqueeze", "scores", g.axes(2))
    rows = g.op("Concat", "levels", column, axis=2)
    low, high = constant("low_db", LOW_DB), constant("high_db", HIGH_DB)
    scaled = g.op("Div", g.op("Clip", rows, low, high), constant("scale_db", SCALE_DB))
    encoded = write_encoder(g, model.encoder, scaled)
    values = g.op("Squeeze", write_linear(g, model.readout, encoded), g.axes(2))
    in_db = g.op("Mul", values, constant("output_db", _OUTPUT_DB))
    least, most = constant("least_db", -MOST_DB), constant("most_db", MOST_DB)
    g.op("Clip", in_db, least, most, out="corrections")
    states: dict[str, Shape] = {
        name: [CHANNELS, *shape] for name, shape in model.shapes.items()
    }
    return g.build(
        {
            "levels": ["T", CHANNELS, N_BANDS],
            "scores": ["T", CHANNELS],
            **states,
        },
        {
            "corrections": ["T", CHANNELS],
            **{f"{name}_next": shape for name, shape in states.items()},
        },
    )

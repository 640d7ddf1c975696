"""Causal frame-wise classifiers with explicit state.

Each network is an encoder and a linear read-out. The output of an encoder for frame t
depends on frames 0..t alone, and its state is an input and an output: the result does
not depend on how a recording is cut into calls.
"""

from collections.abc import Mapping
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.models.toolkit.gru import SequenceGru
from neurovocal.models.toolkit.recipe import ClassifierConfig

NetworkState: TypeAlias = Mapping[str, Tensor]


class GruEncoder(nn.Module):
    """Stacked GRU layers; state ``h1, h2, ...`` of [batch, n_hidden] each.

    The reset gate is applied after the product (``linear_before_reset=1`` in
    ONNX), as fast implementations do.
    """

    def __init__(self, n_in: int, n_hidden: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [n_in] + [n_hidden] * (n_layers - 1)
        self.layers = nn.ModuleList(SequenceGru(size, n_hidden) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.n_out = n_hidden
        self.shapes = {f"h{i}": [n_hidden] for i in range(1, n_layers + 1)}

    def forward(
        self, x: Tensor, state: NetworkState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode [batch, T, n_in]; returns [batch, T, n_hidden] and the next state."""
        next_state: dict[str, Tensor] = {}
        for number, layer in enumerate(self.layers, start=1):
            if number > 1:
                x = self.dropout(x)
            x, last = layer(x, state[f"h{number}"][None])
            next_state[f"h{number}"] = last[0]
        return x, next_state


class LstmEncoder(nn.Module):
    """Stacked LSTM layers; state ``h1, c1, ...`` of [batch, n_hidden] each."""

    def __init__(self, n_in: int, n_hidden: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [n_in] + [n_hidden] * (n_layers - 1)
        self.layers = nn.ModuleList(
            nn.LSTM(size, n_hidden, batch_first=True) for size in sizes
        )
        self.dropout = nn.Dropout(dropout)
        self.n_out = n_hidden
        numbers = range(1, n_layers + 1)
        self.shapes = {f"{kind}{i}": [n_hidden] for i in numbers for kind in "hc"}

    def forward(
        self, x: Tensor, state: NetworkState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode [batch, T, n_in]; returns [batch, T, n_hidden] and the next state."""
        next_state: dict[str, Tensor] = {}
        for number, layer in enumerate(self.layers, start=1):
            if number > 1:
                x = self.dropout(x)
            before = (state[f"h{number}"][None], state[f"c{number}"][None])
            x, (h, c) = layer(x, before)
            next_state |= {f"h{number}": h[0], f"c{number}": c[0]}
        return x, next_state


class CausalConv(nn.Module):
    """Convolution over a frame and the frames before it, which are the state.

    The state has shape [batch, n_in, (kernel_length - 1) * dilation].
    """

    def __init__(
        self, n_in: int, n_out: int, kernel_length: int, dilation: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel_length, dilation=dilation)
        self.shape = [n_in, (kernel_length - 1) * dilation]

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Filter [batch, n_in, T]; returns [batch, n_out, T] and the next state."""
        joined = torch.cat([past, x], dim=2)
        return self.conv(joined), joined[:, :, joined.shape[2] - self.shape[1] :]


class TcnEncoder(nn.Module):
    """Temporal convolutional network: residual blocks of increasing dilation.

    A block is ``x + dropout(relu(conv(x)))`` with dilation 2**i (Bai, Kolter and
    Koltun 2018, simplified), after a projection of the frame.
    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_layers: int,
        kernel_length: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(n_in, n_hidden)
        self.blocks = nn.ModuleList(
            CausalConv(n_hidden, n_hidden, kernel_length, 2**i) for i in range(n_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.n_out = n_hidden
        self.shapes = {
            f"p{number}": cast(CausalConv, block).shape
            for number, block in enumerate(self.blocks, start=1)
        }

    def forward(
        self, x: Tensor, state: NetworkState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode [batch, T, n_in]; returns [batch, T, n_hidden] and the next state."""
        next_state: dict[str, Tensor] = {}
        y = functional.relu(self.project(x)).transpose(1, 2)
        for number, block in enumerate(self.blocks, start=1):
            added, next_state[f"p{number}"] = block(y, state[f"p{number}"])
            y = y + self.dropout(functional.relu(added))
        return y.transpose(1, 2), next_state


class ConvGruEncoder(nn.Module):
    """A causal convolution over a few frames, followed by GRU layers."""

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_layers: int,
        kernel_length: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.conv = CausalConv(n_in, n_hidden, kernel_length, 1)
        self.gru = GruEncoder(n_hidden, n_hidden, n_layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.n_out = n_hidden
        self.shapes = {"p1": self.conv.shape, **self.gru.shapes}

    def forward(
        self, x: Tensor, state: NetworkState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode [batch, T, n_in]; returns [batch, T, n_hidden] and the next state."""
        y, past = self.conv(x.transpose(1, 2), state["p1"])
        y = self.dropout(functional.relu(y)).transpose(1, 2)
        encoded, next_state = self.gru(y, state)
        return encoded, {"p1": past, **next_state}


Encoder: TypeAlias = GruEncoder | LstmEncoder | TcnEncoder | ConvGruEncoder


class Classifier(nn.Module):
    """Encoder and linear read-out: one logit per frame and unit.

    Parameters
    ----------
    config : ClassifierConfig
        Architecture and sizes.
    n_bins : int
        Values per frame, in [0, 1].
    n_units : int
        Outputs, including silence.

    Attributes
    ----------
    shapes : dict of str to list of int
        Shape of each state tensor, without the batch dimension.
    """

    def __init__(self, config: ClassifierConfig, n_bins: int, n_units: int) -> None:
        super().__init__()
        sizes = (n_bins, config.n_hidden, config.n_layers)
        self.encoder: Encoder
        match config.architecture:
            case "gru":
                self.encoder = GruEncoder(*sizes, config.dropout)
            case "lstm":
                self.encoder = LstmEncoder(*sizes, config.dropout)
            case "tcn":
                self.encoder = TcnEncoder(*sizes, config.kernel_length, config.dropout)
            case "conv_gru":
                self.encoder = ConvGruEncoder(
                    *sizes, config.kernel_length, config.dropout
                )
        self.dropout = nn.Dropout(config.dropout)
        self.readout = nn.Linear(self.encoder.n_out, n_units)
        self.shapes: dict[str, list[int]] = self.encoder.shapes

    def initial_state(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Return the state at the start of a stream: zeros."""
        return {
            name: torch.zeros(batch_size, *shape) for name, shape in self.shapes.items()
        }

    def forward(
        self, frames: Tensor, state: NetworkState | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logits of consecutive frames.

        Parameters
        ----------
        frames : float32[batch, T, n_bins]
        state : mapping, optional
            State after the frames before; zeros by default.

        Returns
        -------
        logits : float32[batch, T, n_units]
        state : dict
            State after the last frame.
        """
        before = self.initial_state(len(frames)) if state is None else state
        encoded, next_state = self.encoder(frames, before)
        return self.readout(self.dropout(encoded)), next_state

"""RNN-RBM over units: probability of the next unit, given the units before it.

The model of Boulanger-Lewandowski, Bengio and Vincent (ICML 2012) on sequences of
units: the visible layer is a single one-of-n unit instead of Bernoulli units, so that
the partition function is a sum over the units. Likelihood and gradient are exact,
without contrastive divergence or annealing. As in section 7 of the paper it is a prior
for an acoustic model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.rnn_rbm.network import RecurrentLayer
from neurovocal.models.toolkit.recipe import ForecastConfig
from neurovocal.plugins.models.forecast import encode_gap, encode_token


@dataclass(frozen=True, slots=True, eq=False)
class Phrase:
    """Units that follow each other without a long pause.

    Parameters
    ----------
    units : int64[n]
        Indices of the units, from 0, without silence.
    gaps_ms : float64[n]
        Silence before each unit in ms; the first is infinite.
    """

    units: NDArray[np.int64]
    gaps_ms: NDArray[np.float64]


def split_phrases(
    examples: Sequence[LabelledFrames], frame_ms: float, pause_ms: float
) -> list[Phrase]:
    """Split annotated segments into phrases, at silences longer than `pause_ms`.

    Parameters
    ----------
    examples : sequence of LabelledFrames
        Recordings; a phrase lies within one recording.
    frame_ms : float
        Milliseconds between two frames.
    pause_ms : float
        Silence that ends a phrase.
    """
    phrases = []
    for example in examples:
        spans = example.spans
        if not spans:
            continue
        units = np.array([span.unit - 1 for span in spans])
        first = np.array([span.first for span in spans])
        stop = np.array([span.stop for span in spans])
        gaps = np.concatenate([[np.inf], (first[1:] - stop[:-1]) * frame_ms])
        starts = np.flatnonzero(gaps > pause_ms)
        gaps[starts] = np.inf
        for rows in np.split(np.arange(len(units)), starts[1:]):
            phrases.append(Phrase(units[rows], gaps[rows]))
    return phrases


def gap_edges(phrases: Sequence[Phrase], n_bins: int) -> list[float]:
    """Return the edges in ms of `n_bins` bins with equal numbers of silences."""
    gaps = np.concatenate([p.gaps_ms[np.isfinite(p.gaps_ms)] for p in phrases])
    if not len(gaps):
        return []
    inner = np.arange(1, n_bins) / n_bins
    return [float(edge) for edge in np.unique(np.quantile(gaps, inner).round(3))]


def phrase_inputs(
    phrase: Phrase, n_units: int, edges: Sequence[float]
) -> tuple[Float32, Float32]:
    """Encode a phrase as inputs of the network.

    Returns
    -------
    tokens : float32[n, n_units + n_gaps]
        Row i: one-hot unit i - 1, and one-hot bin of the silence before unit i - 1.
    gaps : float32[n, n_gaps]
        Row i: one-hot bin of the silence before unit i.
    """
    gaps = np.stack([encode_gap(gap, edges) for gap in phrase.gaps_ms])
    rows = [encode_token(None, encode_gap(np.inf, edges), n_units)]
    for unit, gap in zip(phrase.units[:-1], gaps[:-1], strict=True):
        rows.append(encode_token(int(unit), gap, n_units))
    return np.stack(rows), gaps


class UnitRnnRbm(nn.Module):
    r"""Conditional RBM with a one-of-n visible unit on top of a recurrent layer.

    .. math::
        \log p(k \mid u, g) = b_{v,k} + \sum_j \log(1 + e^{b_{h,j} + W_{kj}}) - \log Z

    with biases ``bv + u Wuv + g Wgv`` and ``bh + u Wuh + g Wgh``; ``g`` is the silence
    before the predicted unit, zeros before it is known.

    Parameters
    ----------
    config : ForecastConfig
        Numbers of units and dropout.
    n_units : int
        Number of units without silence.
    n_gaps : int
        Number of bins of silence.
    """

    def __init__(self, config: ForecastConfig, n_units: int, n_gaps: int) -> None:
        super().__init__()
        self.n_units, self.n_gaps = n_units, n_gaps
        self.n_recurrent = config.n_recurrent
        self.layer = RecurrentLayer(n_units + n_gaps, config.n_recurrent, "sigmoid")
        self.dropout = nn.Dropout(config.dropout)
        self.W = nn.Parameter(0.1 * torch.randn(n_units, config.n_hidden))
        self.bv = nn.Parameter(torch.zeros(n_units))
        self.bh = nn.Parameter(torch.zeros(config.n_hidden))
        self.Wuv = nn.Parameter(0.1 * torch.randn(config.n_recurrent, n_units))
        self.Wuh = nn.Parameter(0.1 * torch.randn(config.n_recurrent, config.n_hidden))
        self.Wgv = nn.Parameter(torch.zeros(n_gaps, n_units))
        self.Wgh = nn.Parameter(torch.zeros(n_gaps, config.n_hidden))

    def forward(
        self, tokens: Tensor, gaps: Tensor, u: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the log-probabilities of the unit after each token.

        Parameters
        ----------
        tokens : float32[T, batch, n_units + n_gaps]
            One-hot unit and bin of the silence before it.
        gaps : float32[T, batch, n_gaps]
            One-hot bin of the silence before the predicted unit, or zeros.
        u : float32[batch, n_recurrent], optional
            State before the first token; zeros by default.

        Returns
        -------
        log_posteriors : float32[T, batch, n_units]
        u : float32[batch, n_recurrent]
            State after the last token.
        """
        before = tokens.new_zeros(tokens.shape[1], self.n_recurrent) if u is None else u
        states = self.layer(tokens, before)
        conditioning = self.dropout(states)
        bv = self.bv + conditioning @ self.Wuv + gaps @ self.Wgv
        bh = self.bh + conditioning @ self.Wuh + gaps @ self.Wgh
        hidden = functional.softplus(bh.unsqueeze(-2) + self.W).sum(-1)
        return (bv + hidden).log_softmax(-1), states[-1]

    def predict(self, tokens: Float32, gaps: Float32) -> Float32:
        """Compute the log-probabilities float32[T, n_units] of a phrase."""
        with torch.no_grad():
            logs, _ = self(
                torch.from_numpy(tokens)[:, None], torch.from_numpy(gaps)[:, None]
            )
        rows: Float32 = logs[:, 0].numpy()
        return rows

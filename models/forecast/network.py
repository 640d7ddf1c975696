"""An RNN-RBM over units: which vocalization comes next, given those before.

The model of Boulanger-Lewandowski, Bengio and Vincent (ICML 2012) one level above
frames: the visible layer is a single one-of-n unit instead of many Bernoulli ones, so
that its partition function is a sum over the units. Likelihood and gradient are exact;
neither contrastive divergence nor annealing is needed. As in the paper's section 7 it
serves as a prior for an acoustic model.
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
from neurovocal.plugins.models.classifier.forecast import gap_bin, token_of


@dataclass(frozen=True, slots=True, eq=False)
class Phrase:
    """Units that follow each other without a long pause.

    Parameters
    ----------
    units : int64[n]
        Counted from 0, silence left out.
    gaps_ms : float64[n]
        Silence before each; the first is infinite.
    """

    units: NDArray[np.int64]
    gaps_ms: NDArray[np.float64]


def split_phrases(
    examples: Sequence[LabelledFrames], frame_ms: float, pause_ms: float
) -> list[Phrase]:
    """Annotated segments as phrases, cut where nothing is heard for `pause_ms`.

    Parameters
    ----------
    examples : sequence of LabelledFrames
        Recordings; a phrase never crosses from one to the next.
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
        for one in np.split(np.arange(len(units)), starts[1:]):
            phrases.append(Phrase(units[one], gaps[one]))
    return phrases


def gap_edges(phrases: Sequence[Phrase], n_bins: int) -> list[float]:
    """Silences in ms that cut those of the phrases into bins of equal count."""
    gaps = np.concatenate([p.gaps_ms[np.isfinite(p.gaps_ms)] for p in phrases])
    if not len(gaps):
        return []
    inner = np.arange(1, n_bins) / n_bins
    return [float(edge) for edge in np.unique(np.quantile(gaps, inner).round(3))]


def phrase_inputs(
    phrase: Phrase, n_units: int, edges: Sequence[float]
) -> tuple[Float32, Float32]:
    """What the network hears of a phrase.

    Returns
    -------
    tokens : float32[n, n_units + n_gaps]
        Row i: the unit before unit i, and the silence before that one.
    gaps : float32[n, n_gaps]
        Row i: the silence before unit i.
    """
    gaps = np.stack([gap_bin(gap, edges) for gap in phrase.gaps_ms])
    rows = [token_of(None, gap_bin(np.inf, edges), n_units)]
    for unit, gap in zip(phrase.units[:-1], gaps[:-1], strict=True):
        rows.append(token_of(int(unit), gap, n_units))
    return np.stack(rows), gaps


class UnitRnnRbm(nn.Module):
    r"""Conditional RBM with a one-of-n visible unit on top of a recurrent layer.

    .. math::
        \log p(k \mid u, g) = b_{v,k} + \sum_j \log(1 + e^{b_{h,j} + W_{kj}}) - \log Z

    with biases ``bv + u Wuv + g Wgv`` and ``bh + u Wuh + g Wgh``; ``g`` is the silence
    before the unit that is foretold, zeros while nobody knows it.

    Parameters
    ----------
    config : ForecastConfig
    n_units : int
        Units, silence left out.
    n_gaps : int
        Bins of silence.
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
        """Log-probabilities of the unit after each token.

        Parameters
        ----------
        tokens : float32[T, batch, n_units + n_gaps]
        gaps : float32[T, batch, n_gaps]
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
        heard = self.dropout(states)
        bv = self.bv + heard @ self.Wuv + gaps @ self.Wgv
        bh = self.bh + heard @ self.Wuh + gaps @ self.Wgh
        hidden = functional.softplus(bh.unsqueeze(-2) + self.W).sum(-1)
        return (bv + hidden).log_softmax(-1), states[-1]

    def predict(self, tokens: Float32, gaps: Float32) -> Float32:
        """Log-probabilities float32[T, n_units] of a phrase, without gradients."""
        with torch.no_grad():
            logs, _ = self(
                torch.from_numpy(tokens)[:, None], torch.from_numpy(gaps)[:, None]
            )
        rows: Float32 = logs[:, 0].numpy()
        return rows

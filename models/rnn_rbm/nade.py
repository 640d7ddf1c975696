r"""NADE: a frame's notes one after the other, with an exact likelihood.

H. Larochelle and I. Murray, "The Neural Autoregressive Distribution Estimator",
AISTATS 2011; with biases given by a recurrent network, the RNN-NADE of
Boulanger-Lewandowski, Bengio and Vincent (ICML 2012):

.. math::
    h_i = \sigma(b_h + \sum_{k < i} v_k W_k), \qquad
    P(v_i = 1 \mid v_{<i}) = \sigma(b_{v,i} + V_i \cdot h_i)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Nade(nn.Module):
    """Autoregressive distribution of a frame, from its lowest unit to its highest.

    Parameters
    ----------
    n_visible, n_hidden : int

    Attributes
    ----------
    W, V : float32[n_visible, n_hidden]
        Weights into the hidden units and out of them.
    """

    def __init__(self, n_visible: int, n_hidden: int) -> None:
        super().__init__()
        self.W = nn.Parameter(0.01 * torch.randn(n_visible, n_hidden))
        self.V = nn.Parameter(0.01 * torch.randn(n_visible, n_hidden))

    def log_likelihood(self, v: Tensor, bv: Tensor, bh: Tensor) -> Tensor:
        """Compute log P(v) of each frame, in nats, float[n_frames].

        Parameters
        ----------
        v : float[n_frames, n_visible]
            Frames of values 0 and 1.
        bv, bh : float[n_frames, n_visible], float[n_frames, n_hidden]
            Biases of each frame.
        """
        before = v.cumsum(-1) - v
        # Hidden units change only after a unit that is on: a frame of n such units has
        # n + 1 different hidden layers, far fewer than visible units.
        n_layers = v.sum(-1).long() + 1
        first = n_layers.cumsum(0) - n_layers
        frame = torch.repeat_interleave(torch.arange(len(v)), n_layers)
        n_seen = torch.arange(len(frame)) - first[frame]
        seen = v[frame] * (before[frame] < n_seen[:, None])
        logits = self._hidden(seen @ self.W, bh[frame]) @ self.V.t()
        rows = first[:, None] + before.long()
        own = bv + logits[rows, torch.arange(v.shape[1])]
        return -functional.binary_cross_entropy_with_logits(
            own, v, reduction="none"
        ).sum(-1)

    @torch.no_grad()
    def sample(self, bv: Tensor, bh: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a frame for each row of biases, float[n_frames, n_visible]."""
        v, total = torch.empty_like(bv), torch.zeros_like(bh)
        noise = torch.rand(bv.shape, generator=generator)
        for i in range(bv.shape[1]):
            logit = bv[:, i] + self._hidden(total, bh) @ self.V[i]
            v[:, i] = (torch.sigmoid(logit) > noise[:, i]).to(v.dtype)
            total.addr_(v[:, i], self.W[i])
        return v

    @staticmethod
    def _hidden(total: Tensor, bh: Tensor) -> Tensor:
        return torch.sigmoid(total + bh)

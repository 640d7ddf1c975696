"""Persistent chains for contrastive divergence with biases that differ per frame.

In an unconditional RBM, the chains of persistent contrastive divergence (Tieleman,
ICML 2008) continue from one update to the next. Here each frame has its own RBM and
therefore its own chain, which continues when the frame is drawn again. A chain that
was stored many updates ago belongs to old weights; with a large learning rate of W
such chains let the estimated likelihood grow without limit. A chain therefore restarts
at its frame after a limited number of updates. Memory is bounded: two frames may share
a slot, which holds the chain stored last.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_VALUES, _OWNER, _UPDATE = "chain_values", "chain_owner", "chain_update"


class PersistentChains:
    """Last state of the Gibbs chain of each frame.

    Parameters
    ----------
    carried : dict of str to Tensor
        Storage of the chains, which is part of the checkpoint.
    n_slots : int
        Largest number of stored chains.
    n_visible : int
        Values per frame.
    max_age : int
        Updates after which a stored chain is not used any more.
    """

    def __init__(
        self, carried: dict[str, Tensor], n_slots: int, n_visible: int, max_age: int
    ) -> None:
        self._carried, self._max_age = carried, max_age
        if _VALUES not in carried:
            carried[_VALUES] = torch.zeros(n_slots, n_visible)
            carried[_OWNER] = torch.full((n_slots,), -1, dtype=torch.int64)
            carried[_UPDATE] = torch.zeros(n_slots, dtype=torch.int64)

    def resume(self, frames: NDArray[np.int64], update: int, data: Tensor) -> Tensor:
        """Return the stored chains of `frames`, or `data` for those without one.

        Parameters
        ----------
        frames : int64[...]
            Number of each frame in the training data.
        update : int
            Number of the current update.
        data : float32[..., n_visible]
            Frames at which new chains start.

        Returns
        -------
        float32[..., n_visible]
        """
        slots = torch.from_numpy(frames % len(self._carried[_OWNER]))
        own = self._carried[_OWNER][slots] == torch.from_numpy(frames)
        fresh = update - self._carried[_UPDATE][slots] <= self._max_age
        return torch.where(
            (own & fresh)[..., None], self._carried[_VALUES][slots], data
        )

    def store(self, frames: NDArray[np.int64], update: int, values: Tensor) -> None:
        """Store the chains `values`, float32[..., n_visible], reached at `update`."""
        flat = frames.ravel()
        # The last of the frames that share a slot is stored, in all three arrays.
        slots = flat[::-1] % len(self._carried[_OWNER])
        slots, last = np.unique(slots, return_index=True)
        rows = torch.from_numpy(len(flat) - 1 - last)
        at = torch.from_numpy(slots)
        self._carried[_OWNER][at] = torch.from_numpy(flat)[rows]
        self._carried[_UPDATE][at] = update
        self._carried[_VALUES][at] = values.reshape(len(flat), -1)[rows]

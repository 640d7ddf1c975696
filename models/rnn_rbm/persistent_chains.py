"""Persistent chains for contrastive divergence whose biases change with every frame.

In an RBM without a past, the chains of persistent contrastive divergence (Tieleman,
ICML 2008) go on from one update to the next. Here each frame has an RBM of its own, so
each frame has a chain of its own, too, which is visited only when its frame is drawn
again. A chain that was left for long has lagged behind the weights, and would teach a
model that no longer exists (with a large rate of W the quick likelihood then rises
without end, and falsely). So a chain is used for a limited number of updates, and
begins anew at its frame afterwards. Memory is bounded: two frames may share a slot, and
the later one has it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_VALUES, _OWNER, _UPDATE = "chain_values", "chain_owner", "chain_update"


class PersistentChains:
    """Where the chain of each frame was left.

    Parameters
    ----------
    carried : dict of str to Tensor
        Holds the chains, so that a checkpoint does.
    n_slots : int
        Chains that are kept at most.
    n_visible : int
    longest : int
        Updates after which a chain is forgotten.
    """

    def __init__(
        self, carried: dict[str, Tensor], n_slots: int, n_visible: int, longest: int
    ) -> None:
        self._carried, self._longest = carried, longest
        if _VALUES not in carried:
            carried[_VALUES] = torch.zeros(n_slots, n_visible)
            carried[_OWNER] = torch.full((n_slots,), -1, dtype=torch.int64)
            carried[_UPDATE] = torch.zeros(n_slots, dtype=torch.int64)

    def resume(self, frames: NDArray[np.int64], update: int, data: Tensor) -> Tensor:
        """Where chains go on, or the data where there is none.

        Parameters
        ----------
        frames : int64[...]
            Number of each frame in the training data.
        update : int
        data : float32[..., n_visible]
        """
        slots = torch.from_numpy(frames % len(self._carried[_OWNER]))
        own = self._carried[_OWNER][slots] == torch.from_numpy(frames)
        fresh = update - self._carried[_UPDATE][slots] <= self._longest
        return torch.where(
            (own & fresh)[..., None], self._carried[_VALUES][slots], data
        )

    def store(self, frames: NDArray[np.int64], update: int, values: Tensor) -> None:
        """Remember where chains were left at `update`."""
        flat = frames.ravel()
        # Of frames that share a slot the last one counts, in values and owner alike.
        slots = flat[::-1] % len(self._carried[_OWNER])
        slots, last = np.unique(slots, return_index=True)
        rows = torch.from_numpy(len(flat) - 1 - last)
        at = torch.from_numpy(slots)
        self._carried[_OWNER][at] = torch.from_numpy(flat)[rows]
        self._carried[_UPDATE][at] = update
        self._carried[_VALUES][at] = values.reshape(len(flat), -1)[rows]

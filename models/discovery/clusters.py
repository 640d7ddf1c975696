"""Map of segments and clusters on it.

The map is t-SNE of the features (L. van der Maaten and G. Hinton, "Visualizing data
using t-SNE", Journal of Machine Learning Research 9, 2008), the clusters are those of
HDBSCAN on the map (L. McInnes, J. Healy and S. Astels, "hdbscan: Hierarchical density
based clustering", Journal of Open Source Software 2, 2017), both by scikit-learn. At
most `MOST_MAPPED` segments are arranged so; each other one gets place and cluster of
those whose features are nearest.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from neurovocal.engine.contracts.types import Float32

MOST_MAPPED = 10_000
LEAST_SIZE = 5
UNKNOWN = -1
_PERPLEXITY = 30.0
_NEIGHBOURS = 5
_LEAST_MAPPED = 5
# A medoid is looked for among so many segments of a cluster.
_MOST_COMPARED = 1000
_ASKED_AT_ONCE = 4096

Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """Cluster of each segment.

    Parameters
    ----------
    labels : int32[n_segments]
        From 0 by falling size; `UNKNOWN` for segments of no cluster.
    membership : float32[n_segments]
        How surely a segment is of its cluster, 0 to 1.
    """

    labels: Labels
    membership: Float32


def default_size(n_segments: int) -> int:
    """Return the default of the least number of segments in a cluster."""
    return max(LEAST_SIZE, int(np.sqrt(n_segments) / 2))


def mapped_rows(n_segments: int, seed: int) -> NDArray[np.int64]:
    """Return the segments that are arranged by t-SNE, drawn at random if not all."""
    if n_segments <= MOST_MAPPED:
        return np.arange(n_segments)
    drawn = np.random.default_rng(seed).permutation(n_segments)[:MOST_MAPPED]
    return np.sort(drawn)


def make_map(features: Float32, seed: int) -> Float32:
    """Arrange segments on a plane, those with similar features side by side.

    Parameters
    ----------
    features : float32[n_segments, n_features]
        Finite numbers.
    seed : int
        Seed of draws.

    Returns
    -------
    float32[n_segments, 2]
        About -1 to 1.
    """
    n = len(features)
    if n < _LEAST_MAPPED or not np.ptp(features, axis=0).any():
        # Nothing to arrange: in a row, so that each can be seen.
        row = np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(n)
        return np.stack([row, np.zeros(n)], axis=1).astype(np.float32)
    rows = mapped_rows(n, seed)
    with threadpool_limits(1):  # sums of several threads differ from run to run
        places = np.asarray(_arranged(features[rows], seed), np.float32)
        if len(rows) < n:
            nearest = _nearest(features, rows)
            whole = np.median(places[nearest], axis=1).astype(np.float32)
            whole[rows] = places
            places = whole
    centred = places - places.mean(0)
    scaled: Float32 = centred / max(float(np.abs(centred).max()), 1e-9)
    return scaled


def _arranged(features: Float32, seed: int) -> NDArray[np.floating]:
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    with warnings.catch_warnings():
        # Identical segments have a spread of 0 in most directions.
        warnings.simplefilter("ignore")
        arranged: NDArray[np.floating] = tsne.fit_transform(features.astype(np.float64))
    return arranged


def _nearest(features: Float32, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the nearest mapped segments of each, as indices of `rows`."""
    index = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(features[rows])
    return np.concatenate(
        [
            index.kneighbors(features[at : at + _ASKED_AT_ONCE], return_distance=False)
            for at in range(0, len(features), _ASKED_AT_ONCE)
        ]
    )


def find_clusters(
    places: Float32, features: Float32, min_size: int, seed: int
) -> Clustering:
    """Find the clusters of a map.

    Parameters
    ----------
    places : float32[n_segments, 2]
        The map.
    features : float32[n_segments, n_features]
        Features that it was made of.
    min_size : int
        Least number of segments in a cluster, at least 2.
    seed : int
        Seed that the map was made with.
    """
    n = len(places)
    rows = mapped_rows(n, seed)
    labels, membership = _dense(places[rows], min_size)
    if len(rows) < n:
        nearest = _nearest(features, rows)
        labels, membership = _by_neighbours(labels, membership, nearest, rows)
    return Clustering(by_size(labels), membership)


def _dense(places: Float32, min_size: int) -> tuple[Labels, Float32]:
    """Return cluster and membership of mapped segments."""
    n = len(places)
    unknown = np.full(n, UNKNOWN, np.int32), np.zeros(n, np.float32)
    if n < 2 * min_size:
        return unknown
    if not np.ptp(places, axis=0).any():
        return np.zeros(n, np.int32), np.ones(n, np.float32)
    found = _hdbscan(places, min_size, single=False)
    if (found.labels_ < 0).all():
        # No part is denser than the whole: all are of one kind.
        found = _hdbscan(places, min_size, single=True)
    return (
        np.asarray(found.labels_, np.int32),
        np.nan_to_num(np.asarray(found.probabilities_, np.float32)),
    )


def _hdbscan(places: Float32, min_size: int, *, single: bool) -> Any:
    """Return the fitted HDBSCAN; with `single`, all may be one cluster."""
    return HDBSCAN(
        min_cluster_size=max(2, min_size),
        min_samples=min(LEAST_SIZE, len(places) - 1),
        allow_single_cluster=single,
        copy=True,
    ).fit(places.astype(np.float64))


def _by_neighbours(
    labels: Labels,
    membership: Float32,
    nearest: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> tuple[Labels, Float32]:
    """Give each segment the commonest cluster of its neighbours on the map."""
    votes = labels[nearest]
    whole = np.full(len(nearest), UNKNOWN, np.int32)
    sure = np.zeros(len(nearest), np.float32)
    for label in range(labels.max(initial=UNKNOWN) + 1):
        share = np.asarray((votes == label).mean(1), np.float32)
        better = share > np.maximum(sure, 0.5)
        whole[better], sure[better] = label, share[better]
    whole[rows], sure[rows] = labels, membership
    return whole, sure


def by_size(labels: Labels) -> Labels:
    """Return the labels with new numbers, by falling size of the clusters."""
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = found[np.lexsort((found, -counts))]
    numbers = np.full(int(labels.max(initial=0)) + 2, UNKNOWN, np.int32)
    numbers[order] = np.arange(len(order))
    return numbers[labels]  # the last entry is that of UNKNOWN


def medoid(features: Float32, members: NDArray[np.int64]) -> int:
    """Return the member of a cluster whose summed distance to the others is least."""
    compared = members
    if len(members) > _MOST_COMPARED:
        step = np.linspace(0, len(members) - 1, _MOST_COMPARED).astype(np.int64)
        compared = members[step]
    points = features[compared].astype(np.float64)
    squares = np.square(points).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0.0)
    return int(compared[np.argmin(np.sqrt(distances).sum(1))])


def examples(
    features: Float32, members: NDArray[np.int64], centre: int, count: int
) -> list[int]:
    """Return members from the medoid outwards, at equal steps of rank."""
    away = np.square(features[members] - features[centre]).sum(1)
    order = members[np.argsort(away, kind="stable")]
    at = np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64)
    return [int(k) for k in order[at]]


def joined_features(parts: Sequence[Float32], seed: int) -> Float32:
    """Join features of several kinds, each with the same weight.

    Parameters
    ----------
    parts : sequence of float32[n_segments, n]
        Features of each kind; one with more columns than the first is projected on
        its principal components.
    seed : int
        Seed of draws.
    """
    first = parts[0]
    kinds = []
    for part in parts:
        most = min(first.shape[1], len(part))
        reduced = part - part.mean(0)
        if part is not first and 1 < most < part.shape[1]:
            reduced = PCA(most, random_state=seed).fit_transform(part)
        spread = float(np.sqrt(np.square(reduced).sum(1).mean()))
        kinds.append(np.asarray(reduced / max(spread, 1e-9), np.float32))
    return np.concatenate(kinds, axis=1)

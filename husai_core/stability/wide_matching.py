"""The one-to-one assignment of dictionaries too wide for the matrix of all their similarities.

Only each feature's nearest partners are candidates, looked up block by block, and the assignment among the candidates
is solved exactly (Jonker and Volgenant 1987, sparse). The prices of its columns then bound what any assignment can
reach (linear programming duality), so that the error of leaving the other partners out is known for each result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

NEAREST = 32
"""Candidates of each row and of each column."""
RESIDENT = 2**24
"""Similarities that exist at a time."""
ROUNDS, RISE = 5000, 1e-9
"""When the search for prices ends: any prices give a bound, the last ones the smallest."""


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be assigned to each other: row, column and similarity, each [e]."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    similarity: NDArray[np.float64]


def solve(a: Tensor, b: Tensor, signed: bool) -> tuple[Tensor, Tensor, float]:
    """Assign every row of `a` [n, d] a row of `b` [m, d], n <= m, all of unit length, by cosine, |cosine| if unsigned.

    Returns:
        Partners int64 [n], their similarities [n], and what the sum of similarities is at most under any assignment.
    """
    candidates = nearest_both_ways(a, b, signed)
    weights = (candidates.similarity + 2, (candidates.rows, candidates.columns))  # a weight of 0 would be no candidate
    graph = csr_array(weights, shape=(len(a), len(b)))
    rows, columns = min_weight_full_bipartite_matching(graph, maximize=True)
    partners = np.empty(len(a), dtype=np.int64)
    partners[rows] = columns
    similarity = np.asarray(graph[np.arange(len(a)), partners]).ravel() - 2
    bound = dual_bound(a, b, signed, prices(candidates, partners, similarity, len(b)))
    return torch.from_numpy(partners), torch.from_numpy(similarity), bound


def nearest_both_ways(a: Tensor, b: Tensor, signed: bool) -> Candidates:
    """The `NEAREST` columns of each row, the `NEAREST` rows of each column, and the pairs of equal index.

    The last make sure that a complete assignment exists, even where latents that never fire are equally far from all.
    """
    pairs = list[tuple[Tensor, Tensor, Tensor]]()
    best, at = a.new_empty(len(b), 0), torch.empty(len(b), 0, dtype=torch.int64, device=a.device)
    for start, similarity in blocks(a, b, signed):
        rows = torch.arange(start, start + len(similarity), device=a.device)
        of_rows = similarity.topk(min(NEAREST, len(b)), dim=1)
        pairs.append((rows[:, None].expand_as(of_rows.indices), of_rows.indices, of_rows.values))
        pairs.append((rows, rows, similarity[rows - start, rows]))
        of_columns = similarity.T.topk(min(NEAREST, len(similarity)), dim=1)
        best, at = torch.cat([best, of_columns.values], 1), torch.cat([at, of_columns.indices + start], 1)
        best, places = best.topk(min(NEAREST, best.shape[1]), dim=1)
        at = at.gather(1, places)
    pairs.append((at, torch.arange(len(b), device=a.device)[:, None].expand_as(at), best))
    of_row, of_column, values = (
        torch.cat([t.flatten() for t in side]).cpu().numpy() for side in zip(*pairs, strict=True)
    )
    _, distinct = np.unique(of_row * len(b) + of_column, return_index=True)
    return Candidates(of_row[distinct], of_column[distinct], values[distinct].astype(np.float64))


def prices(candidates: Candidates, partners: NDArray[np.int64], similarity: NDArray[np.float64], m: int) -> Tensor:
    """The least prices [m] of the columns at which no row would rather have another candidate than its partner.

    The longest paths of the residual graph, by Bellman and Ford; columns that nobody has cost nothing.
    """
    price = np.zeros(m)
    gain = candidates.similarity - similarity[candidates.rows]
    rivals = partners[candidates.rows]
    for _ in range(ROUNDS):
        raised = price.copy()
        np.maximum.at(raised, candidates.columns, price[rivals] + gain)
        if (raised - price).max() < RISE:
            break
        price = raised
    return torch.from_numpy(price)


def dual_bound(a: Tensor, b: Tensor, signed: bool, price: Tensor) -> float:
    """What every row could get at these prices [m], plus the prices: no assignment has a larger sum."""
    levels = price.to(a)
    profit = sum(float((similarity - levels).amax(1).double().sum()) for _, similarity in blocks(a, b, signed))
    return profit + float(price.sum())


def blocks(a: Tensor, b: Tensor, signed: bool) -> Iterator[tuple[int, Tensor]]:
    """The similarities of some rows of `a` with all of `b`, with the index of the first of these rows."""
    size = max(1, RESIDENT // len(b))
    for start in range(0, len(a), size):
        cosines = a[start : start + size] @ b.T
        yield start, cosines if signed else cosines.abs_()

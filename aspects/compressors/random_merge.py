"""Random feature merging: a control of Going Beyond Neural Network Feature Similarity (Chen et al. 2024, arXiv:2310.06756).

Pairs of units are drawn at random and become one by the rule of `feature_merge`: what feeds them is summed, what reads
them averaged, weighted by counts.
"""
import dataclasses
from typing import Any, Mapping

import numpy as np

from aspects import data
from aspects.nn import units


@dataclasses.dataclass(frozen=True)
class RandomMerge:
  """Merges pairs drawn by `seed` in the hidden layers called `layers`; without names, in all that can be merged."""
  seed: int = 0
  layers: tuple[str, ...] = ()

  def plan(self, evidence: Mapping[str, Any], budget: float) -> dict:
    return self.plans(evidence, (budget,))[0]

  def plans(self, evidence: Mapping[str, Any], budgets: tuple[float, ...]) -> list[dict]:
    """A plan for each budget, of one sequence of merges."""
    return units.plans(evidence, budgets, self._pair, self.layers)

  def apply(self, params, plan: Mapping[str, Any]) -> dict:
    return units.merge(params, plan)

  def _pair(self, distance: np.ndarray, layer: int, merges: int) -> tuple[int, int]:
    alive = np.flatnonzero(np.isfinite(distance).any(1))
    i, j = alive[data.permutation(len(alive), self.seed, layer, merges)[:2]]
    return min(i, j), max(i, j)

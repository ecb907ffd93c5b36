"""Going Beyond Neural Network Feature Similarity: iterative feature merging (Chen, Zhou & Yan 2024, arXiv:2310.06756).

Again and again the two closest units of a hidden layer become one: what feeds it is the sum, what reads it the mean
over the group, weighted by counts. The distance of two units is squared and Euclidean, over the kernels that feed and
read them as they stand, merged ones included; biases are merged and not compared. No data, no training afterwards.
Equal units of a relu layer merge exactly, mean(v) relu(2 z) = (v + v) relu(z). A merged unit, being a sum, moves away
from a third one that equals its parts.

Differs from the paper: the budget, a share of the units, says when to stop (the reference's max_ratio), not a ratio
beta of the least to the largest distance. Dense layers only; nonlinearities that are not positively homogeneous, for
which the rule is wrong, and units that a residual connection reads are refused.
"""
import dataclasses
from typing import Any, Mapping

import numpy as np

from aspects.nn import units


def closest(distance: np.ndarray, layer: int, merges: int) -> tuple[int, int]:
  """The pair i < j of the least `distance` [size, size]; the first of equals."""
  del layer, merges
  i, j = np.unravel_index(np.argmin(distance), distance.shape)
  return min(i, j), max(i, j)


@dataclasses.dataclass(frozen=True)
class FeatureMerge:
  """Merges the closest units of the hidden layers called `layers`; without names, of all that can be merged."""
  layers: tuple[str, ...] = ()

  def plan(self, evidence: Mapping[str, Any], budget: float) -> dict:
    return self.plans(evidence, (budget,))[0]

  def plans(self, evidence: Mapping[str, Any], budgets: tuple[float, ...]) -> list[dict]:
    """A plan for each budget at the price of the smallest, as the merges of a larger one come first."""
    return units.plans(evidence, budgets, closest, self.layers)

  def apply(self, params, plan: Mapping[str, Any]) -> dict:
    return units.merge(params, plan)

"""The Lottery Ticket Hypothesis: pruning of the weights of smallest magnitude (Frankle & Carbin 2018, arXiv:1803.03635).

Each kernel keeps its largest |w|. All lose the same share of what is left of them, the output layer half of that share
(20 % and 10 % a round in the paper); weights that are zero count as pruned, so that rounds follow each other without
a memory. Biases are not pruned.

Differs from the paper: the budget is a share of all weights, from which the share of a kernel follows, and a kernel
keeps an exact number. A scanned stack of layers counts as one kernel.
"""
import dataclasses
from typing import Any, Mapping

import numpy as np

from aspects.nn import masks


@dataclasses.dataclass(frozen=True)
class Magnitude:
  """Keeps the largest weights; the output layer loses `last` times the share that the others lose."""
  last: float = 0.5

  def plan(self, evidence: Mapping[str, Any], budget: float) -> dict:
    return masks.plan(evidence, budget, self.last, lambda path, w: np.abs(w))

  def apply(self, params, plan: Mapping[str, Any]) -> dict:
    return masks.apply(params, self.mask(params, plan))

  def mask(self, params, plan: Mapping[str, Any]) -> dict:
    """The plan as a tree of bool like `params`, for learning rules with a mask."""
    return masks.tree(params, plan)

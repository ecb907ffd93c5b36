"""Random masks: the control of The Lottery Ticket Hypothesis, as many weights in other places (Frankle & Carbin 2018, arXiv:1803.03635).

Each kernel keeps exactly as many weights as under `magnitude` with the same `last`, drawn at random."""
import dataclasses
from typing import Any, Mapping
import zlib

import numpy as np

from aspects import data
from aspects.nn import masks


@dataclasses.dataclass(frozen=True)
class RandomMask:
  """Keeps weights drawn by `seed`; the output layer loses `last` times the share that the others lose."""
  seed: int = 0
  last: float = 0.5

  def plan(self, evidence: Mapping[str, Any], budget: float) -> dict:
    return masks.plan(evidence, budget, self.last, self._score)

  def apply(self, params, plan: Mapping[str, Any]) -> dict:
    return masks.apply(params, self.mask(params, plan))

  def mask(self, params, plan: Mapping[str, Any]) -> dict:
    """The plan as a tree of bool like `params`, for learning rules with a mask."""
    return masks.tree(params, plan)

  def _score(self, path: str, w: np.ndarray) -> np.ndarray:
    return data.permutation(w.size, self.seed, zlib.crc32(path.encode())).reshape(w.shape)

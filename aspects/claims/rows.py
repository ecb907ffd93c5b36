"""What a procedure is given and what it gives back: one arm of a claim for a block of seeds."""
import pathlib
from typing import Any, Callable, Mapping, NamedTuple, Protocol

import numpy as np


class Cell(NamedTuple):
  """One arm of a claim under a block of S seeds.

  `seeds` are integers in [0, 2^31), the same for every arm of the claim, from which data, initialisation and order are
  derived; `arm` is the `study.Arm` made for exactly these seeds, None where the config has no network.
  """
  seeds: tuple[int, ...]
  arm: Any
  workdir: pathlib.Path
  preempted: Callable[[], bool]
  progress: bool = False


class Rows(NamedTuple):
  """One value a metric and seed; `params`, `flops` and `steps` of one seed, None where they mean nothing.

  `metrics` {name: [S]}, `diverged` [S] bool (None: none), `curves` {'test_nll@step': (x [K], y [S, K])} for the page.
  """
  metrics: Mapping[str, np.ndarray]
  diverged: np.ndarray | None = None
  params: int | None = None
  flops: float | None = None
  steps: int | None = None
  curves: Mapping[str, tuple] = {}


class Procedure(Protocol):
  """A claim's own experiment: a frozen dataclass in `experiments/<system>.py` whose fields the arms may override."""

  def rows(self, cell: Cell) -> Rows: ...

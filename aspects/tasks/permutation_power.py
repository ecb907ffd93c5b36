"""A permutation in the input, applied several times: a task that asks for one layer after another.

The input is the table of a permutation p of n symbols and a start s, the label p(p(...p(s))), `hops` times. One hop is
a product of two inputs and every further hop one of what the hop before gave, so that blocks that only see the input
are at a loss (cf. k-hop tasks, Sanford, Hsu & Telgarsky 2024, arXiv:2402.09268)."""
import dataclasses
import itertools

import jax
import numpy as np

from aspects.data import ArraySource, Source, divide, held_out

LARGEST = 7                                          # symbols: 7! 7 = 35,280 examples are listed in a moment


@dataclasses.dataclass(frozen=True)
class PermutationPower:
  """n (n + 1) numbers 0 or 1 float32 (row i of the table is p(i), then the start) -> one of `outputs` = n symbols.

  `test_share` of the n! n pairs are drawn by `split_seed`, the others are for training; `train_size` keeps fewer of
  these, `label_noise` makes that share of their labels wrong."""
  symbols: int = 5
  hops: int = 3
  test_share: float = 0.2
  train_size: int | None = None
  label_noise: float = 0.0
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'classify'
  metric = 'accuracy'

  def __post_init__(self):
    if not 2 <= self.symbols <= LARGEST or self.hops < 1:
      raise ValueError(f'symbols {self.symbols}, hops {self.hops}: give 2 to {LARGEST} symbols and 1 hop or more')

  @property
  def outputs(self) -> int:
    return self.symbols

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {'input': jax.ShapeDtypeStruct((self.symbols * (self.symbols + 1),), np.float32),
            'label': jax.ShapeDtypeStruct((), np.int32)}

  def source(self, split: str) -> Source:
    n = self.symbols
    tables = np.array(list(itertools.permutations(range(n))))
    tables, start = np.repeat(tables, n, 0), np.tile(np.arange(n), len(tables))
    label = start
    for _ in range(self.hops):
      label = tables[np.arange(len(tables)), label]
    bits = np.eye(n, dtype=np.float32)
    inputs = np.concatenate([bits[tables].reshape(len(tables), -1), bits[start]], 1)
    every = ArraySource(input=inputs, label=label.astype(np.int32))
    return divide(every, held_out(len(every), self.test_share, self.split_seed), split=split, seed=self.split_seed,
                  classes=n, train_size=self.train_size, label_noise=self.label_noise)

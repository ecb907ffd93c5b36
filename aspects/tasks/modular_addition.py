"""Addition modulo p from a share of all pairs: the task on which grokking was found.

Power et al. (2022, "Grokking: generalization beyond overfitting on small algorithmic datasets",
arXiv:2201.02177); p = 113 and 30 % of the pairs for training as in Nanda et al. (2023, "Progress
measures for grokking via mechanistic interpretability", arXiv:2301.05217).

The tokens are [a, b, =] with p the token of `=`; the label is a + b mod p and is to be read at the
last position, so a network takes `pool='last'` and `vocab` = p + 1 tokens in, p classes out.
Differs from Power et al.: no token for the operation, since there is one. The split is over ordered
pairs, as in both papers: (a, b) may be trained on and (b, a) tested."""
import dataclasses

import jax
import numpy as np

from aspects.data import ArraySource, Source, divide, held_out


@dataclasses.dataclass(frozen=True)
class ModularAddition:
  """Tokens int32 [3] = a, b, `=` -> label (a + b) mod p, one of `outputs` = p classes.

  `test_share` of the p^2 ordered pairs are drawn by `split_seed`, the others are for training;
  `train_size` keeps fewer of these, `label_noise` makes that share of their labels wrong."""
  p: int = 113
  test_share: float = 0.7
  train_size: int | None = None
  label_noise: float = 0.0
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'classify'
  metric = 'accuracy'

  def __post_init__(self):
    if self.p < 2:
      raise ValueError(f'p is {self.p}; numbers modulo p need p >= 2')

  @property
  def outputs(self) -> int:
    return self.p

  @property
  def vocab(self) -> int:
    return self.p + 1

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {'input': jax.ShapeDtypeStruct((3,), np.int32),
            'label': jax.ShapeDtypeStruct((), np.int32)}

  def source(self, split: str) -> Source:
    a, b = np.divmod(np.arange(self.p ** 2, dtype=np.int32), np.int32(self.p))
    every = ArraySource(input=np.stack([a, b, np.full_like(a, self.p)], 1), label=(a + b) % self.p)
    return divide(every, held_out(len(every), self.test_share, self.split_seed), split=split,
                  seed=self.split_seed, classes=self.p, train_size=self.train_size,
                  label_noise=self.label_noise)

"""The 4,096 patterns of 12 bits of the information-plane literature, with their published labels.

Shwartz-Ziv and Tishby (2017), arXiv:1703.00810; used again by Saxe et al. (2018, "On the
information bottleneck theory of deep learning", ICLR). Bit i says whether point i of 12 points
spread evenly on a sphere is present, and the label is a threshold on a function of the pattern that
no rotation or reflection changes (O(3)): the number of points and of pairs at each distance,

  label = 1  if  23 points + near - 5 middle - 8 opposite > 98,

with the icosahedron's three distances between pairs (63.4, 116.6 and 180 degrees). The paper states
the form of the rule, not its numbers. These weights, and which bit is which vertex, were worked out
from the labels that the authors published with their code (IDNNs, `var_u.mat`) and give all 4,096
of them back: 64 classes of patterns, 2,118 ones. Other weights separate the same classes as well.

Differs from the paper: labels are a function of the pattern (the paper states 0.99 bits between the
two; `label_noise` puts noise back), and which patterns are trained on is drawn by `split_seed`."""
import dataclasses
import itertools

import jax
import numpy as np

from aspects.data import ArraySource, Source, divide, held_out

# Bit i is vertex ORDER[i] of the icosahedron whose vertices are listed by `vertices`.
ORDER = (0, 2, 9, 4, 11, 10, 7, 1, 6, 3, 8, 5)


def vertices() -> np.ndarray:
  """The 12 points on the unit sphere [12, 3] in the order of the bits: an icosahedron's."""
  golden = (1 + np.sqrt(5)) / 2
  corners = [np.roll((0, a, b * golden), axis)
             for axis, a, b in itertools.product(range(3), (1, -1), (1, -1))]
  return np.array(corners)[list(ORDER)] / np.sqrt(1 + golden ** 2)


def pairs(bits: np.ndarray) -> np.ndarray:
  """Bits [N, 12] -> number of present pairs that are near, in the middle, and opposite [N, 3]."""
  cosines = np.array([1, -1, -np.sqrt(5)]) / np.sqrt(5)
  apart = np.isclose((vertices() @ vertices().T)[None], cosines[:, None, None]).astype(int)
  return np.einsum('ni,dij,nj->nd', bits, apart, bits) // 2


def labels(bits: np.ndarray) -> np.ndarray:
  """Bits [N, 12] of 0 and 1 -> published labels [N] int32."""
  score = 23 * bits.sum(1) + pairs(bits) @ np.array([1, -5, -8])
  return (score > 98).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Boolean:
  """12 bits float32 [12] of 0 and 1 -> label 0 or 1, about half each (51.7 % ones).

  `test_share` of the patterns (20 % in the authors' code) are drawn by `split_seed`, the others are
  for training; `train_size` keeps fewer, `label_noise` flips that share of their labels."""
  test_share: float = 0.2
  train_size: int | None = None
  label_noise: float = 0.0
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'classify'
  metric = 'accuracy'
  outputs = 2

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {'input': jax.ShapeDtypeStruct((12,), np.float32),
            'label': jax.ShapeDtypeStruct((), np.int32)}

  def source(self, split: str) -> Source:
    bits = np.arange(4096)[:, None] >> np.arange(11, -1, -1) & 1
    every = ArraySource(input=bits.astype(np.float32), label=labels(bits))
    return divide(every, held_out(4096, self.test_share, self.split_seed), split=split,
                  seed=self.split_seed, classes=self.outputs, train_size=self.train_size,
                  label_noise=self.label_noise)

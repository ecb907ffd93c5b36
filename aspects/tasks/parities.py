"""Bits with several binary labels of chosen difficulty, each the parity of bits of its own.

After Lampinen, Chan and Hermann (2024, arXiv:2405.05847): features that play the same role for the
outputs and differ in how hard they are to compute. Label k is 1 if an odd number of its
`labels[k]` bits are +1: the bit itself for one, XOR for two, a parity for more. Labels read disjoint
bits, the first ones in order; the others are read by none. Over all patterns the labels are
independent and each is 1 in half of them, and both splits keep that exactly: every combination of
labels is drawn equally often, so that in the data, too, no label says anything of another.

Differs from the paper: parities only."""
import dataclasses

import jax
import numpy as np

from aspects.data import ArraySource, Source, permutation

LARGEST = 20                                       # bits: 2 ** 20 patterns are listed in a second


@dataclasses.dataclass(frozen=True)
class Parities:
  """`bits` numbers -1 or +1 float32 [bits] -> as many labels 0 or 1 as `labels` has numbers, int32 [K].

  `train_size` and `test_size` patterns, no two alike, are drawn by `split_seed`; both are multiples
  of 2^K."""
  labels: tuple[int, ...] = (1, 2)
  bits: int = 16
  train_size: int = 8192
  test_size: int = 4096
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'multilabel'
  metric = 'accuracy'

  def __post_init__(self):
    if not self.labels or min(self.labels) < 1:
      raise ValueError(f'labels {self.labels} lists the number of bits of each label: 1 or more of them, each from 1')
    if not sum(self.labels) <= self.bits <= LARGEST:
      raise ValueError(f'labels {self.labels} read {sum(self.labels)} bits and there are {self.bits}; '
                       f'give that many or more, at most {LARGEST}')
    cells = 2 ** len(self.labels)
    for field in ('train_size', 'test_size'):
      size = getattr(self, field)
      if size < cells or size % cells:
        raise ValueError(f'{field} {size} is not a multiple of the {cells} combinations of {len(self.labels)} labels; '
                         f'nearest: {max(round(size / cells), 1) * cells}')
    if self.train_size + self.test_size > 2 ** self.bits:
      raise ValueError(f'train_size {self.train_size} and test_size {self.test_size} are more than the '
                       f'{2 ** self.bits} patterns of {self.bits} bits')

  @property
  def outputs(self) -> int:
    return len(self.labels)

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {'input': jax.ShapeDtypeStruct((self.bits,), np.float32),
            'label': jax.ShapeDtypeStruct((len(self.labels),), np.int32)}

  def source(self, split: str) -> Source:
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; there are {", ".join(self.splits)}')
    patterns = permutation(2 ** self.bits, self.split_seed)
    bits = patterns[:, None] >> np.arange(self.bits) & 1
    ends = np.cumsum((0, *self.labels))
    label = np.stack([bits[:, a:b].sum(1) % 2 for a, b in zip(ends, ends[1:])], 1)
    cell = label @ 2 ** np.arange(len(self.labels))
    cells = 2 ** len(self.labels)
    first = {'train': 0, 'test': self.train_size // cells}[split]
    count = {'train': self.train_size, 'test': self.test_size}[split] // cells
    chosen = np.sort(np.concatenate([np.flatnonzero(cell == c)[first:first + count] for c in range(cells)]))
    return ArraySource(input=(2 * bits[chosen] - 1).astype(np.float32), label=label[chosen].astype(np.int32))

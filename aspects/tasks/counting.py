"""Counting by one through numbers, letters, days and months, among random tokens: a world in which successor heads are of use (after Gould et al. 2023, arXiv:2312.09230).

Each element is one token. A sequence takes a family and an element at random and counts on, with a random number of
tokens that say nothing behind every element. So the successor of an element stands at no fixed distance, and what
stands just before it does not tell it. All families are cycles: 99 is followed by 0, the last letter by the first.

`shuffled` is the control: each family counts through a random cycle of its own instead of in order. Tokens are as
frequent and as far apart as before, and how they are called means nothing. `tens` is the share of the sequences of
numbers that count by ten: with them the last digit means something, which counting by one alone does not need."""
import dataclasses

import jax
import numpy as np

from aspects import data

FAMILIES = {'numbers': 100, 'letters': 26, 'days': 7, 'months': 12}
STARTS = dict(zip(FAMILIES, (0, 100, 126, 133)))
ELEMENTS = 145


@dataclasses.dataclass(frozen=True)
class Counting:
  """Tokens int32 [T] -> the token after each of them, int32 [T]; T = `length`, one of `outputs`.

  Elements are the tokens 0 .. 144, families in the order of `FAMILIES`; `noise` further tokens mean nothing. Behind an
  element there are 0 .. `gap` of these. `train_size` and `test_size` sequences and the shuffled cycles are drawn by
  `split_seed`; a test sequence that is also in the train split is drawn again."""
  length: int = 24
  noise: int = 55
  gap: int = 2
  shuffled: bool = False
  tens: float = 0.0
  train_size: int = 16384
  test_size: int = 1024
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'next_token'
  metric = 'nll'

  def __post_init__(self):
    if self.noise < 1 or self.gap < 0 or self.length < 2:
      raise ValueError(f'noise {self.noise} must be at least 1, gap {self.gap} at least 0, length {self.length} at '
                       'least 2')
    if not 0 <= self.tens <= 1:
      raise ValueError(f'tens {self.tens} is a share of the sequences of numbers; it must be in 0..1')

  @property
  def outputs(self) -> int:
    return ELEMENTS + self.noise

  @property
  def vocab(self) -> int:
    return self.outputs

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((self.length,), np.int32) for name in ('input', 'label')}

  def successors(self, by: int = 1) -> np.ndarray:
    """int [ELEMENTS]: the element `by` steps on in the cycles that this task counts through."""
    out = np.zeros(ELEMENTS, np.int64)
    for k, (family, size) in enumerate(FAMILIES.items()):
      cycle = data.permutation(size, self.split_seed, 2, k) if self.shuffled else np.arange(size)
      out[STARTS[family] + cycle] = STARTS[family] + np.roll(cycle, -by)
    return out

  def source(self, split: str) -> data.Source:
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; splits: {", ".join(self.splits)}')
    train = self._drawn(0, self.train_size, set())
    rows = train if split == 'train' else self._drawn(1, self.test_size, {r.tobytes() for r in train})
    return data.ArraySource(input=rows[:, :-1], label=rows[:, 1:])

  def _drawn(self, stream: int, count: int, seen: set[bytes]) -> np.ndarray:
    """int32 [count, T + 1], none among `seen` and no two alike; from raw draws, the same under every numpy."""
    bits = np.random.PCG64(np.random.SeedSequence((self.split_seed, stream)))
    out, seen = np.zeros((0, self.length + 1), np.int32), set(seen)
    while len(out) < count:
      rows = self._sequences(bits, count - len(out))
      fresh = [not (row.tobytes() in seen or seen.add(row.tobytes())) for row in rows]
      out = np.concatenate([out, rows[fresh]])
    return out

  def _sequences(self, bits, count: int) -> np.ndarray:
    below = lambda n, *shape: (bits.random_raw(shape) % np.uint64(n)).astype(np.int64)
    sizes, starts = np.array([*FAMILIES.values()]), np.array([*STARTS.values()])
    family = below(len(sizes), count)
    now = starts[family] + (bits.random_raw(count) % sizes[family].astype(np.uint64)).astype(np.int64)
    by_ten = (family == 0) & (below(2 ** 32, count) < self.tens * 2 ** 32)
    ones, tens = self.successors(), self.successors(10)
    left = below(self.gap + 1, count)                # noise that stands before the next element
    out = np.zeros((count, self.length + 1), np.int32)
    for t in range(self.length + 1):
      here = left == 0
      out[:, t] = np.where(here, now, ELEMENTS + below(self.noise, count))
      now = np.where(here, np.where(by_ten, tens[now], ones[now]), now)
      left = np.where(here, below(self.gap + 1, count), left - 1)
    return out

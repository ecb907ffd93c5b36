"""Random tokens that repeat: the task on which induction heads form (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Olsson et al. 2022, arXiv:2209.11895).

A sequence draws a period n and n random tokens, and repeats these to its end. The first n tokens cannot be predicted,
the others can, by what stood behind the same token before. As n is another in every sequence, no fixed distance back
gives the answer."""
import dataclasses

import jax
import numpy as np

from aspects.data import ArraySource, Source


@dataclasses.dataclass(frozen=True)
class RepeatedSequences:
  """Tokens int32 [T] -> the token after each of them, int32 [T]; T = `length`, `vocab` outputs.

  The period n is uniform in `shortest` .. `longest`; the n tokens of a period differ from each other, so that what
  stood before tells what follows. `train_size` and `test_size` sequences are drawn by `split_seed`; a test sequence
  that is also in the train split is drawn again."""
  vocab: int = 64
  length: int = 48
  shortest: int = 8
  longest: int = 24
  train_size: int = 8192
  test_size: int = 512
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'next_token'
  metric = 'nll'

  def __post_init__(self):
    if not 2 <= self.shortest <= self.longest <= min(self.vocab, self.length):
      raise ValueError(f'periods {self.shortest}..{self.longest} must be from 2 to at most vocab {self.vocab} and '
                       f'length {self.length}, since the tokens of a period differ')

  @property
  def outputs(self) -> int:
    return self.vocab

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((self.length,), np.int32) for name in ('input', 'label')}

  def source(self, split: str) -> Source:
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; splits: {", ".join(self.splits)}')
    train = self._drawn(np.random.PCG64(np.random.SeedSequence((self.split_seed, 0))), self.train_size, set())
    rows = train if split == 'train' else self._drawn(
        np.random.PCG64(np.random.SeedSequence((self.split_seed, 1))), self.test_size, {r.tobytes() for r in train})
    return ArraySource(input=rows[:, :-1], label=rows[:, 1:])

  def _drawn(self, bits: np.random.PCG64, count: int, seen: set[bytes]) -> np.ndarray:
    """int32 [count, T + 1], none among `seen` and no two alike; from raw draws, the same under every numpy."""
    out, seen = np.zeros((0, self.length + 1), np.int32), set(seen)
    while len(out) < count:
      more = count - len(out)
      period = self.shortest + bits.random_raw(more) % np.uint64(self.longest - self.shortest + 1)
      order = np.argsort(bits.random_raw((more, self.vocab)), axis=1)
      place = np.arange(self.length + 1)[None] % period[:, None].astype(np.int64)
      rows = np.take_along_axis(order, place, 1).astype(np.int32)
      fresh = [not (row.tobytes() in seen or seen.add(row.tobytes())) for row in rows]
      out = np.concatenate([out, rows[fresh]])
    return out


def repeats(tokens: np.ndarray) -> np.ndarray:
  """bool [B, T]: whether the token at a place also stands before it, so that what follows it can be predicted."""
  tokens = np.asarray(tokens)
  earlier = np.tril(np.ones((tokens.shape[1],) * 2, bool), -1)
  return ((tokens[:, :, None] == tokens[:, None]) & earlier).any(-1)

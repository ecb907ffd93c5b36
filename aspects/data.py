"""Streams of batches with random access by step: the step is all the state that a stream needs.

A `Source` gathers examples by position; a `Stream` decides which positions make up batch k. Both
are pure functions of their fields, so a resumed run asks for batch k and gets the batch it would
have had, and every host of a job cuts its own slice out of the same global batch.

A batch is a dict of arrays: the fields of the source (`input` [B, ...], `label` [B] or [B, T],
optional `mask` [B, T]), `weight` [B] float32 (0 = padding) and `index` [B] int32 (position in the
source)."""
import dataclasses
import functools
import hashlib
import operator
import queue
import threading
from typing import Any, Callable, Iterable, Iterator, Protocol

import numpy as np

RESERVED = ('weight', 'index')                     # what the stream itself adds to a batch
LISTED = 2 ** 20                                   # longer epochs are not written down as a list


class Source(Protocol):
  """Examples of one split. `source[positions]` gathers: [B] int -> {'input': [B, ...], ...}."""

  def __len__(self) -> int: ...

  def __getitem__(self, positions: np.ndarray) -> dict[str, np.ndarray]: ...


class ArraySource:
  """Examples in memory: `ArraySource(input=x, label=y)`, first axis = examples.

  Raises ValueError for no fields, different lengths, no examples or a reserved name."""

  def __init__(self, **arrays):
    self.arrays = {name: np.asarray(values) for name, values in arrays.items()}
    if taken := [name for name in self.arrays if name in RESERVED]:
      raise ValueError(f'field {taken[0]!r} is written by the stream; give it another name')
    lengths = {name: len(a) if a.ndim else 0 for name, a in self.arrays.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
      raise ValueError(f'fields have lengths {lengths}; give one or more, all of one length >= 1')

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values())))

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    positions = check_positions(positions, len(self))
    return {name: values[positions] for name, values in self.arrays.items()}


class DataSource:
  """Adapts a data source of tfds or grain (`__len__`, `__getitems__`).

  `read` maps one stored example, a dict, to the arrays of one example; they are stacked."""

  def __init__(self, data, read: Callable[[Any], dict[str, np.ndarray]]):
    self.data, self.read = data, read

  def __len__(self) -> int:
    return len(self.data)

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    rows = self.data.__getitems__(check_positions(positions, len(self)).tolist())
    rows = [self.read(row) for row in rows]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@dataclasses.dataclass(frozen=True, eq=False)
class Mapped:
  """`source` with `function` applied to every gathered batch of fields, e.g. bytes to floats."""
  source: Source
  function: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    return self.function(self.source[positions])


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
  """The examples of `source` at `positions` [N]; example i is number `positions[i]` there."""
  source: Source
  positions: np.ndarray

  def __len__(self) -> int:
    return len(self.positions)

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    return self.source[self.positions[check_positions(positions, len(self))]]


def check_positions(positions, n: int) -> np.ndarray:
  """`positions` as an array; IndexError outside 0..n-1 (numpy wraps negative ones around)."""
  positions = np.asarray(positions)
  if positions.size and not 0 <= positions.min() <= positions.max() < n:
    raise IndexError(f'positions {positions.min()}..{positions.max()} are not all in 0..{n - 1}')
  return positions


def permutation(n: int, *seed: int) -> np.ndarray:
  """A uniform permutation of 0..n-1 [n], the same under every version of numpy.

  It sorts raw 64-bit draws: numpy promises fixed bit generators and seed sequences, but not fixed
  methods of `Generator` (NEP 19)."""
  draws = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(n)
  return np.argsort(draws, kind='stable')


def take(source: Source, n: int, seed: int) -> Subset:
  """`n` examples of `source` drawn by `seed`, in order; a smaller draw lies within a larger one."""
  if not 1 <= n <= len(source):
    raise ValueError(f'cannot take {n} of {len(source)} examples; ask for 1 to {len(source)}')
  return Subset(source, np.sort(permutation(len(source), seed)[:n]))


def hold(source: Source, limit: int = 2 ** 28) -> Source:
  """`source` read into memory if it fits into `limit` bytes, judged by its first example."""
  row = source[np.zeros(1, np.int64)]
  if len(source) * sum(values.nbytes for values in row.values()) > limit:
    return source
  return ArraySource(**source[np.arange(len(source))])


def corrupt(labels: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
  """Labels [N] of which round(share N) are moved to another class, all classes alike.

  Label noise in the sense of Zhang et al. (2017, arXiv:1611.03530), without the chance hits."""
  if not 0 <= share <= 1:
    raise ValueError(f'label noise {share} is not a share of the labels; it must be in 0..1')
  chosen = permutation(len(labels), seed, 1)[:round(share * len(labels))]
  shift = 1 + permutation(len(labels), seed, 2)[chosen] % (classes - 1)
  out = np.array(labels)
  out[chosen] = (out[chosen] + shift) % classes
  return out


def held_out(n: int, share: float, seed: int) -> np.ndarray:
  """Which of `n` examples are test examples [n] bool: round(share n) of them, drawn by `seed`."""
  if not 1 <= round(share * n) < n:
    raise ValueError(f'a test share of {share} leaves a split of {n} examples empty')
  out = np.zeros(n, bool)
  out[permutation(n, seed)[:round(share * n)]] = True
  return out


def divide(every: Source, test: np.ndarray, *, split: str, seed: int, classes: int,
           train_size: int | None = None, label_noise: float = 0.0) -> Source:
  """The `split` of `every`: 'test' is where `test` [N] bool, 'train' the rest, less and noisier.

  `seed` draws the `train_size` examples that are kept and the `label_noise` share that is wrong."""
  if split not in ('train', 'test'):
    raise ValueError(f'there is no split {split!r}; splits: train, test')
  if split == 'test':
    return ArraySource(**every[np.flatnonzero(test)])
  train = every[np.flatnonzero(~test)]
  train['label'] = corrupt(train['label'], classes, label_noise, seed)
  train = ArraySource(**train)
  return train if train_size is None else take(train, train_size, seed)


def fingerprint(source: Source, rows: int = 1024) -> str:
  """SHA-256 (hex) of the length and of up to `rows` evenly spaced examples, fields by name."""
  sample = source[np.unique(np.linspace(0, len(source) - 1, rows).astype(np.int64))]
  digest = hashlib.sha256(str(len(source)).encode())
  for name in sorted(sample):
    digest.update(f'{name} {sample[name].dtype.str} {sample[name].shape}'.encode())
    digest.update(np.ascontiguousarray(sample[name]).tobytes())
  return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _epoch(n: int, seed: int, epoch: int) -> np.ndarray:
  return permutation(n, seed, epoch).astype(np.int32)


def _shuffled(n: int, seed: int, epoch: int, places: np.ndarray) -> np.ndarray:
  """The positions [B] in the source at `places` [B] of an epoch; a bijection of 0..n-1."""
  if n <= LISTED:
    return _epoch(n, seed, epoch)[places]
  # Random access without a list of the epoch, some microseconds an example; the import takes
  # seconds. The seed is hashed because grain's own shuffle adds the epoch to it, so that seed 0
  # would repeat seed 1 one epoch later.
  from grain.experimental import index_shuffle
  key = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
  return np.array([index_shuffle(int(p), max_index=n - 1, seed=key, rounds=4) for p in places],
                  np.int32)


@dataclasses.dataclass(frozen=True)
class Stream:
  """Batches of `source`: `stream.batch(step)` for any step, in any order, the same every time.

  `batch_size` is the global batch. `seed` None keeps the order of the source; an int >= 0 shuffles
  it, anew every epoch. With `repeat` epochs follow each other without a gap and every step >= 0
  exists; without it there is one pass of `len(stream)` steps, and what its last batch lacks is
  padded by its last example at weight 0, so that shapes are static. `host` = (index, count) is the
  contiguous slice of the global batch that this host reads.

  Raises ValueError for an empty source or a field out of range, IndexError for a missing step."""
  source: Source
  batch_size: int
  seed: int | None = None
  repeat: bool = False
  host: tuple[int, int] = (0, 1)

  def __post_init__(self):
    n, (index, count) = len(self.source), self.host
    if not 1 <= n < 2 ** 31:
      raise ValueError(f'the source has {n} examples; a stream needs 1 to 2**31 - 1')
    if self.batch_size < 1:
      raise ValueError(f'batch_size is {self.batch_size}; it must be at least 1')
    if self.seed is not None and self.seed < 0:
      raise ValueError(f'seed is {self.seed}; give an int >= 0, or None for the given order')
    if not 0 <= index < count:
      raise ValueError(f'there is no host {index} of {count}; hosts count from 0')
    if self.batch_size % count:
      raise ValueError(f'batch_size {self.batch_size} is not a multiple of {count} hosts; '
                       f'nearest: {max(self.batch_size // count, 1) * count}')

  def __len__(self) -> int:
    """Steps of one pass."""
    return -(-len(self.source) // self.batch_size)

  def example(self) -> dict[str, np.ndarray]:
    """A batch to make networks with."""
    return self.batch(0)

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """Batch number `step`, this host's slice of it: B = batch_size / hosts rows."""
    step, n, (host, count) = operator.index(step), len(self.source), self.host
    if step < 0 or (step >= len(self) and not self.repeat):
      raise IndexError(f'step {step} is not in 0..{len(self) - 1}; repeat=True has no end')
    size = self.batch_size // count
    places = step * self.batch_size + host * size + np.arange(size)
    weight = (places < n) | self.repeat
    index = self._positions(places if self.repeat else np.minimum(places, n - 1))
    return {**self.source[index], 'weight': weight.astype(np.float32), 'index': index}

  def _positions(self, places: np.ndarray) -> np.ndarray:
    epochs, places = np.divmod(places, len(self.source))
    if self.seed is None:
      return places.astype(np.int32)
    index = np.zeros(len(places), np.int32)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
      here = epochs == epoch
      index[here] = _shuffled(len(self.source), self.seed, epoch, places[here])
    return index


@dataclasses.dataclass(frozen=True)
class SeedStreams:
  """One stream per run, stacked: every array of a batch gets a leading seed axis, [S, B, ...].

  A run's order depends on its own stream only, so that arms with the same seeds are paired."""
  streams: tuple[Stream, ...]

  def __post_init__(self):
    shapes = [(len(s), s.batch_size, s.repeat, tuple(s.host)) for s in self.streams]
    if len(set(shapes)) != 1:
      raise ValueError(f'(steps, batch_size, repeat, host) are {shapes}; give one or more streams '
                       f'that agree in all four')

  def __len__(self) -> int:
    return len(self.streams[0])

  @property
  def source(self) -> Source:
    return self.streams[0].source

  def example(self) -> dict[str, np.ndarray]:
    """A batch of the first run, without the seed axis."""
    return self.streams[0].batch(0)

  def batch(self, step: int) -> dict[str, np.ndarray]:
    batches = [stream.batch(step) for stream in self.streams]
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def prefetch(items: Iterable, depth: int = 2) -> Iterator:
  """The same items, made by a thread that stays up to `depth` ahead of the reader.

  An exception in `items` is raised at its place. Closing or dropping the iterator ends the thread.
  """
  if depth < 1:
    raise ValueError(f'depth is {depth}; a prefetch holds at least 1 item')
  return _prefetch(items, depth)


def _prefetch(items: Iterable, depth: int) -> Iterator:
  ready, room, stop = queue.SimpleQueue(), threading.Semaphore(depth), threading.Event()

  def work():
    try:
      source = iter(items)
      while room.acquire() and not stop.is_set():
        ready.put((next(source), None))
    except BaseException as error:                 # whatever it is, the reader must not wait on
      ready.put((None, error))

  worker = threading.Thread(target=work, name='prefetch', daemon=True)
  worker.start()
  try:
    while True:
      item, error = ready.get()
      if isinstance(error, StopIteration):
        return
      if error is not None:
        raise error
      room.release()
      yield item
  finally:
    stop.set()
    room.release()
    worker.join()

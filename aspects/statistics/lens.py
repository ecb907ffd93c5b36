"""What the end of a network makes of an earlier stream (nostalgebraist 2020; Belrose et al. 2023, arXiv:2303.08112).

A stream is put in the place of the last one and the network is run from there: the final norm and the head, whatever
they are, tied or not, capped or not, with a pool or without. Of the logits z so read, and those of the network, z*:
  kl         KL(softmax z* || softmax z) in nats
  entropy    of softmax z, in nats
  agreement  share of rows whose largest logits are at the same output
  rank       of the largest of z* among z, from 1; outputs that are equal count as one
  nll, accuracy   cross-entropy of the label in nats, and whether it is the largest, if the batches have integer labels
Each is a mean over rows (tokens, if each has logits), weighted by `weight` and `mask`.
"""
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import edits
from aspects import stats

Array = jax.Array
OUTPUTS = ('kl', 'entropy', 'agreement', 'rank')
SCORES = ('nll', 'accuracy')


class Translators(NamedTuple):
  """An affine map of each stream before it is read, x + x W + b: weight [L, D, D], bias [L, D], and the L sites."""
  sites: tuple[str, ...]
  weight: Any
  bias: Any


class Readings(NamedTuple):
  """Sums over rows while data pass; then means {quantity: [L]}, without the scores if there are no labels."""
  streams: Any          # the L sites, when finished
  rows: Any             # those with logits, and those with labels: [2]
  values: Any           # [L, 6]
  weight: Any           # of the translators, None without them
  bias: Any


@dataclasses.dataclass(frozen=True)
class Lens:
  """Reads each of `streams` [B, T, D] where the network reads `final`: Readings.

  `translators` is a file that `save` wrote, whose maps are applied first. The end of the network runs once for each
  stream, `batch_size` of them side by side. In unrolled stacks the compiler drops all that lies before `final`; a
  scanned one runs whole each time.

  Raises:
    ValueError: a stream of another shape than `final`, or translators of other sites.
  """
  streams: tuple[str, ...]
  final: str
  logits: str = 'logits'
  translators: str = ''
  fold: str = 'all'
  batch_size: int = 1

  reruns = True

  @property
  def sites(self):
    return (*self.streams, self.logits)

  def init(self, specs):
    shape = specs[self.final].shape[1:]
    if odd := [s for s in self.streams if specs[s].shape[1:] != shape]:
      raise ValueError(f'the end of the network reads {self.final!r} {shape} and cannot read {odd[0]!r} '
                       f'{specs[odd[0]].shape[1:]}; choose sites of the last stage')
    maps = load(self.translators) if self.translators else None
    if maps and (maps.sites != self.streams or maps.bias.shape[1:] != shape[-1:]):
      raise ValueError(f'{self.translators} holds translators of {maps.sites}, width {maps.bias.shape[1]}; '
                       f'the streams here are {self.streams}, width {shape[-1]}')
    sums = stats.Sum.zeros((2,)), stats.Sum.zeros((len(self.streams), len(OUTPUTS) + len(SCORES)))
    return Readings((), *sums, *((jnp.asarray(maps.weight), jnp.asarray(maps.bias)) if maps else (None, None)))

  def update(self, state, acts, batch, rerun):
    expected = acts[self.logits]
    def reading(stream):
      x, *maps = stream
      logits = read(rerun, translated(x, *maps) if maps else x, self.final, self.logits)
      return sums(logits, expected, batch, self.fold)
    maps = (state.weight, state.bias) if self.translators else ()
    streams = jnp.stack([acts[s] for s in self.streams])
    each = jax.lax.map(reading, (streams, *maps), batch_size=min(self.batch_size, len(self.streams)))
    count = weights(expected, batch, self.fold).sum()
    new = jnp.stack([count, count * float(labelled(batch))]), each
    return self.merge(state, Readings((), *(stats.Sum(x, jnp.zeros_like(x)) for x in new), state.weight, state.bias))

  def merge(self, a, b):
    return Readings((), a.rows.plus(b.rows), a.values.plus(b.values), a.weight, a.bias)

  def finish(self, state):
    rows, table = stats.float64(state.rows), stats.float64(state.values)
    if not rows[0]:
      raise ValueError(f'a lens needs a row of data in fold {self.fold!r}; every example there has weight 0 or is '
                       'masked')
    values = {name: column / rows[0] for name, column in zip(OUTPUTS, table.T)}
    if rows[1]:
      values |= {name: column / rows[1] for name, column in zip(SCORES, table.T[len(OUTPUTS):])}
    return Readings(self.streams, rows, values, None, None)


def read(rerun, stream: Array, final: str, logits: str = 'logits') -> Array:
  """The logits of the network if `stream` were its last one."""
  return rerun({final: edits.Replace(value=stream)}, (logits,))[1][logits]


def translated(x: Array, weight: Array, bias: Array) -> Array:
  """x + x W + b: [B, T, D], [D, D], [D]."""
  change = jnp.einsum('btd,de->bte', x, weight) + jnp.broadcast_to(bias, x.shape)
  return x + change.astype(x.dtype)


def weights(logits: Array, batch, fold: str) -> Array:
  """The weight of each row of logits [B, ..., V] in a fold: [N]."""
  weight = stats.rows(logits, batch, 'tokens')[1].astype(jnp.float32)
  return weight * stats.in_fold(logits, batch, 'tokens', fold)


def divergence(logits: Array, expected: Array) -> Array:
  """KL(softmax expected || softmax logits) over the last axis, in nats."""
  p, q = jax.nn.log_softmax(expected), jax.nn.log_softmax(logits)
  return (jnp.exp(p) * (p - q)).sum(-1)


def sums(logits: Array, expected: Array, batch, fold: str) -> Array:
  """Weighted sums over rows of OUTPUTS and SCORES: [6], the scores 0 without labels."""
  weight = weights(expected, batch, fold)
  z, own = (x.reshape(-1, x.shape[-1]).astype(jnp.float32) for x in (logits, expected))
  log_p, top = jax.nn.log_softmax(z), own.argmax(-1)
  at = lambda x, index: jnp.take_along_axis(x, index[:, None], -1, mode='clip')
  values = [divergence(z, own), -(jnp.exp(log_p) * log_p).sum(-1), z.argmax(-1) == top,
            1 + (z > jnp.broadcast_to(at(z, top), z.shape)).sum(-1)]
  if labelled(batch):
    label = labels_of(expected, batch)
    values += [-at(log_p, label)[:, 0], z.argmax(-1) == label]
  total = lambda x: jnp.where(weight > 0, weight * x.astype(jnp.float32), 0).sum()
  return jnp.stack([total(x) for x in values] + [jnp.zeros(())] * (len(OUTPUTS) + len(SCORES) - len(values)))


def labelled(batch) -> bool:
  """Whether the examples have classes; labels that are not integers are another kind of target."""
  return 'label' in batch and jnp.issubdtype(batch['label'].dtype, jnp.integer)


def labels_of(logits: Array, batch) -> Array:
  """The label of each row of logits: int [N]."""
  if batch['label'].shape != logits.shape[:-1]:
    raise ValueError(f"labels {batch['label'].shape} do not match logits {logits.shape}; a row of logits has a label")
  return batch['label'].reshape(-1)


def save(translators: Translators, path) -> None:
  """Writes translators to `path`, an .npz file."""
  np.savez(path, sites=np.array(translators.sites), weight=np.asarray(translators.weight, np.float32),
           bias=np.asarray(translators.bias, np.float32))


def load(path) -> Translators:
  """The translators of a file that `save` wrote."""
  with np.load(path) as found:
    return Translators(tuple(map(str, found['sites'])), found['weight'], found['bias'])

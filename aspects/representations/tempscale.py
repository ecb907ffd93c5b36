"""Length-Induced Embedding Collapse: attention as a low-pass filter, and its temperature (Zhou et al. 2024, arXiv:2410.24200).

Over the n real tokens of an example DC x is their mean and HC x = x - DC x. A row-stochastic attention matrix A lets
the part HC x through with a gain of at most sigma_a = the largest singular value of HC A, times that of the values. The
longer a text, the flatter are its rows and the smaller is sigma_a, so that embeddings of long texts keep little but
their means and come close to each other. TempScale divides the scores of every layer by tau < 1 at inference: the edit
`temperature(tau)`, q / tau, since scores are linear in q. For each temperature and length bin:
  sigma    sigma_a, mean over heads and examples
  high     |HC x| / |DC x|, Frobenius norms over the tokens, mean over examples, of the stream behind each layer
  cosine   mean cosine of the embeddings of all pairs of different examples
The length of an example is its number of real tokens (`mask`).

Differs from the paper: sigma_a is that of each head, not bounded; embeddings are measured, no benchmark is run. A
soft cap of scores acts behind the temperature.
"""
import dataclasses
import re
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import edits
from aspects import stats
from aspects.sites import select

Array = jax.Array
SQUARINGS = 12


class Filtered(NamedTuple):
  """Of K temperatures and M bins: sums while data pass, means when finished."""
  sites: Any            # those of sigma and of high, when finished
  weight: Any           # [M] of examples
  squared: Any          # [M] sum of squared weights
  sigma: Any            # [K, M, A] of layers with attention
  high: Any             # [K, M, S]
  unit: Any             # [K, M, D]: the sum of embeddings of length 1; finished: cosine [K, M]


@dataclasses.dataclass(frozen=True)
class Filtering:
  """What attention filters at each of `taus`, by bins of length with upper `edges`: Filtered.

  The network runs once more for each tau that is not 1. `queries` are the sites that the temperature divides."""
  attention: tuple[str, ...]
  streams: tuple[str, ...]
  embedding: str
  queries: tuple[str, ...]
  taus: tuple[float, ...]
  edges: tuple[int, ...]

  reruns = True

  @property
  def sites(self):
    return tuple(dict.fromkeys((*self.attention, *self.streams, self.embedding)))

  def init(self, specs):
    k, m = len(self.taus), len(self.edges)
    width = stats.width(specs[self.embedding], 'mean')
    shapes = (m,), (m,), (k, m, len(self.attention)), (k, m, len(self.streams)), (k, m, width)
    return Filtered((), *(stats.Sum.zeros(shape) for shape in shapes))

  def update(self, state, acts, batch, rerun):
    each = []
    for tau in self.taus:
      here = acts if tau == 1 else rerun(temperature(tau, self.queries), self.sites)[1]
      each.append(self._of(here, batch))
    weight = self._weights(acts, batch)                                          # [M, B]
    # Rows of weight 0 may hold anything, NaN included.
    total = lambda x: jnp.einsum('mb,bd->md', weight, jnp.where((weight.sum(0) > 0)[:, None], x, 0),
                                 precision=jax.lax.Precision.HIGHEST)
    sums = (jnp.stack([total(x) for x in column]) for column in zip(*each))
    new = Filtered((), weight.sum(1), (weight ** 2).sum(1), *sums)
    return self.merge(state, jax.tree.map(lambda x: stats.Sum(x, jnp.zeros_like(x)), new))

  def merge(self, a, b):
    return Filtered((), *(x.plus(y) for x, y in zip(a[1:], b[1:])))

  def finish(self, state):
    sums = stats.float64(state)
    n, squared = sums.weight, sums.squared
    if not n.any():
      raise ValueError('no example has a length up to the largest of edges; give larger edges')
    with np.errstate(divide='ignore', invalid='ignore'):
      mean = lambda x: x / n[None, :, None]
      pairs = np.where(n ** 2 > squared, n ** 2 - squared, np.nan)
      cosine = ((sums.unit ** 2).sum(-1) - squared) / pairs
    return Filtered((self.attention, self.streams), n, squared, mean(sums.sigma), mean(sums.high), cosine)

  def _weights(self, acts, batch) -> Array:
    """[M, B]: the weight of each example in its bin."""
    real = _real(acts[self.streams[0]], batch)
    length, weight = real.sum(1), batch['weight'].astype(jnp.float32)
    edges = jnp.asarray((0, *self.edges), length.dtype)
    inside = (length[None] > edges[:-1, None]) & (length[None] <= edges[1:, None])
    return inside * weight[None]

  def _of(self, acts, batch) -> tuple[Array, Array, Array]:
    """(sigma [B, A], high [B, S], unit [B, D]) of every example."""
    real = _real(acts[self.streams[0]], batch)
    sigma = [lowpass_gain(acts[s], real).mean(1) for s in self.attention]
    high = [high_over_mean(acts[s], real) for s in self.streams]
    x = stats.rows(acts[self.embedding], batch, 'mean')[0].astype(jnp.float32)
    unit = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    stacked = lambda xs: jnp.stack(xs, 1) if xs else jnp.zeros((len(x), 0))
    return stacked(sigma), stacked(high), unit


def _real(stream: Array, batch) -> Array:
  """bool [B, T]: the tokens that count."""
  if 'mask' in batch:
    return batch['mask'] > 0
  return jnp.ones(stream.shape[:2], bool)


def temperature(tau: Any, queries) -> dict[str, edits.Edit]:
  """The edit that divides the scores of all layers by `tau`: their `queries`, sites q or what meets the keys."""
  return {site: edits.Scale(factor=1 / tau) for site in queries}


def queries(specs: Mapping[str, Any]) -> tuple[str, ...]:
  """The sites at which scores are linear: q, or q_rot in layers that have it (behind a norm q has no scale).

  Raises:
    ValueError: the network has no attention."""
  layers = [name.split('.')[1] for name in specs if re.fullmatch(r'q\.\d+', name)]
  if not layers:
    raise ValueError('the network has no queries q.*, whose scale is the temperature of attention')
  return tuple(f'q_rot.{i}' if f'q_rot.{i}' in specs else f'q.{i}' for i in layers)


def lowpass_gain(probs: Array, real: Array) -> Array:
  """sigma_a [B, H] of attention [B, H, T, T] among real tokens [B, T]: the largest singular value of A less its column
  means."""
  both = real[:, None, :, None] & real[:, None, None]
  a = jnp.where(jnp.broadcast_to(both, probs.shape), probs.astype(jnp.float32), 0)
  count = jnp.maximum(real.sum(1), 1)[:, None, None, None]
  a = jnp.where(jnp.broadcast_to(both, probs.shape), a - a.sum(2, keepdims=True) / count, 0)
  return jnp.sqrt(_largest(_times(a, a.swapaxes(-1, -2))))


def _largest(gram: Array) -> Array:
  """The largest eigenvalue of symmetric matrices [..., n, n] from 0, by products alone: P = G^m by repeated squaring,
  then tr(P G P) / tr(P P), at most by a share log(n) / 2 m too small. A batch of decompositions inside a program for
  the CPU may wait for its own threads without end."""
  power = gram
  for _ in range(SQUARINGS):
    power = power / jnp.maximum(jnp.abs(power).max((-1, -2), keepdims=True), jnp.finfo(jnp.float32).tiny)
    power = _times(power, power)
  power = power / jnp.maximum(jnp.abs(power).max((-1, -2), keepdims=True), jnp.finfo(jnp.float32).tiny)
  above = (power * _times(gram, power)).sum((-1, -2))
  return jnp.maximum(above, 0) / jnp.maximum((power ** 2).sum((-1, -2)), jnp.finfo(jnp.float32).tiny)


def _times(a: Array, b: Array) -> Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def high_over_mean(x: Array, real: Array) -> Array:
  """|HC x| / |DC x| [B] of a stream [B, T, D] over its real tokens [B, T]."""
  count = jnp.maximum(real.sum(1), 1)[:, None]
  x = jnp.where(jnp.broadcast_to(real[..., None], x.shape), x.astype(jnp.float32), 0)
  mean = x.sum(1) / count
  rest = jnp.where(jnp.broadcast_to(real[..., None], x.shape), x - mean[:, None], 0)
  low = jnp.linalg.norm(mean, axis=-1) * jnp.sqrt(count[:, 0])
  return jnp.sqrt((rest ** 2).sum((1, 2))) / jnp.maximum(low, jnp.finfo(jnp.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Tempscale:
  """Low-pass filtering at several temperatures: sigma [tau, length, attention], high [tau, length, site], cosine [tau,
  length].

  Args:
    sites: the streams of `high`.
    attention: the attention of `sigma`; none, (), saves its products, which cost some T^3 a head.
    embedding: the site whose mean over real tokens is the embedding.
    taus: temperatures; 1 is the network as it is.
    edges: the largest lengths of the bins, ascending; none is one bin of all examples. Longer ones are left out.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  attention: tuple[str, ...] = ('attn_probs.*',)
  embedding: str = 'final_norm'
  taus: tuple[float, ...] = (1.0, 0.8)
  edges: tuple[int, ...] = ()

  invariant = {}

  def __post_init__(self):
    if not self.taus or min(self.taus) <= 0:
      raise ValueError(f'taus {self.taus} must be above 0; 1 leaves the network as it is')
    if list(self.edges) != sorted(set(self.edges)) or min(self.edges, default=1) < 1:
      raise ValueError(f'edges {self.edges} must ascend from 1 or more')

  def needs(self, specs):
    names, embedding = select(self.sites, specs), select(self.embedding, specs)
    attention = select(self.attention, specs) if self.attention else ()
    if len(embedding) != 1:
      raise ValueError(f'embedding {self.embedding!r} is {len(embedding)} sites; give one')
    for name in names:
      if len(specs[name].shape) != 3:
        raise ValueError(f'site {name!r} of shape {specs[name].shape} is no stream [B, T, D] of tokens')
    longest = specs[names[0]].shape[1]
    return {'filtered': Filtering(attention, names, embedding[0], queries(specs), self.taus, self.edges or (longest,))}

  def compute(self, filtered: Filtered) -> xr.Dataset:
    edges = self.edges or ('all',)
    attention, streams = filtered.sites
    out = xr.Dataset(
        {'sigma': (('tau', 'length', 'attention'), filtered.sigma), 'high': (('tau', 'length', 'site'), filtered.high),
         'cosine': (('tau', 'length'), filtered.unit), 'examples': (('length',), filtered.weight)},
        {'tau': list(self.taus), 'length': list(edges), 'attention': list(attention), 'site': list(streams)},
        attrs=dict(aspect='representations', title='Length collapse and temperature', headline='cosine',
                   question='Does attention leave long texts more than their mean?',
                   source='Zhou et al. 2024, arXiv:2410.24200', embedding=self.embedding))
    texts = {'sigma': 'largest gain of attention off the mean', 'high': 'tokens about their mean, over the mean',
             'cosine': 'mean cosine of embeddings', 'examples': 'examples'}
    for name in out:
      out[name].attrs = dict(long_name=texts[name], units='examples' if name == 'examples' else '1', figure='none')
    out['cosine'].attrs |= dict(limits=[-1, 1])
    return out

"""Successor Heads: attention heads that move an element to the next one of its order (Gould, Ong, Ogden & Conmy 2023, arXiv:2312.09230).

Read off the weights. The effective embedding e(t) of a token t is the stream behind the first MLP, W_E t + MLP_0(N(W_E
t)), with nothing from other tokens and no position; the effective OV circuit of a head maps it to logits e(t) OV U.
  successor_score   share of the elements whose largest logit within their family is that of the next element
  vocabulary_score  the same within the whole vocabulary, which is much to ask of a single head
Gains of norms are folded into OV and the unembedding U, and the mean of the stream is taken off (`nn.head_weights`);
biases are left out. Elements without a next one (the last of a family that is no cycle) are not asked.

`mod_probe` looks for the value modulo m in representations of numbers: ridge regression on indicators of the m classes,
fitted on a share of the numbers, scored on the others, means over several draws. Its coefficients are m directions.

Differs from the paper: both scores, since which tokens compete changes the number a lot; a linear probe, not a sparse
autoencoder; heads of the first layer are scored on e(t) too, although in the network they read W_E t.
"""
import dataclasses
from typing import Mapping, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import data
from aspects import edits
from aspects import sites
from aspects.nn import head_weights

PENALTIES = tuple(np.geomspace(1e-4, 1e2, 13).tolist())


class Probe(NamedTuple):
  """`directions` [m, D] of all numbers, of length 1 and about their mean; `accuracy` on numbers left out of the fit."""
  directions: np.ndarray
  accuracy: float


@dataclasses.dataclass(frozen=True)
class SuccessorHeads:
  """Scores [layer, head] of every attention head of a network: `successor_score`, `vocabulary_score`.

  It reads weights and no data: call `of(net, variables)`. `families` are token ids in order, of two or more elements
  each; `cycles` says of each whether its last element is followed by its first.
  """
  families: tuple[tuple[int, ...], ...]
  cycles: tuple[bool, ...] = ()

  examples = ()                                      # a function of weights: no statistic of activations says it

  def __post_init__(self):
    if not self.families or min(map(len, self.families)) < 2:
      raise ValueError('families are tuples of two token ids or more, in order')
    if self.cycles and len(self.cycles) != len(self.families):
      raise ValueError(f'{len(self.cycles)} cycles for {len(self.families)} families; say it of each, or of none')
    if len({t for family in self.families for t in family}) < sum(map(len, self.families)):
      raise ValueError('a token stands twice in families, so that what follows it is not one token')

  def needs(self, specs):
    raise ValueError('successor heads are read off weights and not off activations: '
                     'SuccessorHeads(families).of(net, variables)')

  def of(self, net, variables: Mapping) -> xr.Dataset:
    """The scores of all heads of a decoder (`Net` with embed `tokens` and head `unembed`).

    Raises:
      ValueError: a token outside the vocabulary, a first layer without an MLP, or weights that cannot be folded."""
    tokens = np.array([t for family in self.families for t in family])
    unembedding = head_weights.unembedding(net, variables['params'])
    if tokens.max() >= unembedding.shape[1] or tokens.min() < 0:
      raise ValueError(f'token {tokens.max()} of families is outside the vocabulary of {unembedding.shape[1]}')
    effective = embeddings(net, variables, tokens)[1]
    return self.scores(effective, np.stack([h.ov for h in head_weights.layers(net, variables['params'])]), unembedding)

  def scores(self, effective: np.ndarray, ov: np.ndarray, unembedding: np.ndarray) -> xr.Dataset:
    """The same of effective embeddings [N, D] of all elements in order, OV circuits [L, H, D, D] and U [D, V]."""
    tokens, position = np.array([t for family in self.families for t in family]), 0
    hits = {'successor_score': [], 'vocabulary_score': []}
    for k, family in enumerate(self.families):
      ids = tokens[position:position + len(family)]
      asked = len(family) if self.cycles and self.cycles[k] else len(family) - 1
      logits = effective[position:position + asked] @ ov @ unembedding           # [L, H, asked, V]
      following = np.roll(ids, -1)[:asked]
      hits['successor_score'].append(ids[logits[..., ids].argmax(-1)] == following)
      hits['vocabulary_score'].append(logits.argmax(-1) == following)
      position += len(family)
    values = {name: (('layer', 'head'), np.concatenate(found, -1).mean(-1)) for name, found in hits.items()}
    coords = {'layer': np.arange(ov.shape[0]), 'head': np.arange(ov.shape[1])}
    out = xr.Dataset(values, coords, attrs=dict(
        aspect='locality', title='Successor heads', question='Which heads move an element to the next one?',
        source='Gould et al. 2023, arXiv:2312.09230', headline='successor_score', elements=len(tokens)))
    among = {'successor_score': 'its family', 'vocabulary_score': 'the vocabulary'}
    for name in out:
      out[name].attrs = dict(long_name=f'elements moved to the next one, among {among[name]}', units='1', figure='map',
                             limits=[0, 1])
    return out


def embeddings(net, variables: Mapping, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(W_E t, e(t)), both [N, D] in float64: the embedding of tokens and the stream behind the first MLP on it alone.

  The network itself computes it, without positions and with its first attention switched off.

  Raises:
    ValueError: the embedding has no table of tokens, or the first layer no MLP."""
  params = variables['params']
  if net.embed['name'] != 'tokens' or 'wider' in params['embedder']:
    raise ValueError(f"the embedding {net.embed['name']!r} has no table of vectors of the stream; 'tokens' has")
  if net.channel is None:
    raise ValueError('the effective embedding is what the first MLP makes of a token; this network has none')
  scale = net.embed['scale'] if 'scale' in net.embed else 1.0
  raw = jnp.asarray(params['embedder']['token']['embedding'])[np.asarray(tokens)] * scale
  changes = {'embed': edits.Replace(value=raw[:, None]), 'mixer_out.0': edits.Skip()}
  found = sites.forward(net, variables, np.asarray(tokens)[:, None], record=('resid_post.0',), edits=changes)[1]
  return np.asarray(raw, np.float64), np.asarray(found['resid_post.0'][:, 0], np.float64)


def mod_probe(x: np.ndarray, values: np.ndarray, m: int = 10, *, share: float = 0.7, draws: int = 20,
              seed: int = 0) -> Probe:
  """Reads `values` [N] modulo m off rows x [N, D]: fitted on `share` of the rows, scored on the others.

  Rows are centred and scaled as a whole; the penalty is the one of `PENALTIES` that does best on fitted rows left out
  one by one.

  Raises:
    ValueError: fewer rows than would leave two of each class on average, or a share that leaves a part empty."""
  x, digit = np.asarray(x, np.float64), np.asarray(values) % m
  count = round(share * len(x))
  if len(x) != len(digit) or len(x) < 2 * m or not 0 < count < len(x):
    raise ValueError(f'{len(x)} rows, {len(digit)} values and a share of {share} do not allow to fit and to score '
                     f'{m} classes; give at least {2 * m} rows')
  hot = np.eye(m)[digit] - 1 / m
  right = []
  for draw in range(draws):
    order = data.permutation(len(x), seed, draw)
    fit, held = order[:count], order[count:]
    weights, mean = _ridge(x[fit], hot[fit])
    right.append((((x[held] - mean) @ weights).argmax(1) == digit[held]).mean())
  directions = _ridge(x, hot)[0].T
  length = np.linalg.norm(directions, axis=1, keepdims=True)
  return Probe(directions / np.where(length > 0, length, 1), float(np.mean(right)))


def _ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(weights [D, m], mean [D]) of the ridge regression of y on x - mean, its penalty by leaving rows out."""
  mean = x.mean(0)
  u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
  best = None
  for penalty in PENALTIES:
    shrink = s ** 2 / (s ** 2 + penalty * (s ** 2).mean()) if s.any() else np.zeros_like(s)
    fitted = (u * shrink) @ (u.T @ y)
    # what is left of a row when it is left out of its own fit; 1 / N is the part of its mean
    leverage = ((u ** 2) * shrink).sum(1) + 1 / len(x)
    error = (((y - fitted) / np.maximum(1 - leverage, 1e-9)[:, None]) ** 2).mean()
    if best is None or error < best[0]:
      scaled = shrink / np.where(s > 0, s, 1)
      best = error, vt.T @ (scaled[:, None] * (u.T @ y))
  return best[1], mean

"""Talking Heads: which heads of a layer read what a head before them wrote (Merullo, Eickhoff & Pavlick 2024, arXiv:2406.09519).

With rows on the left (x W), a head a writes through OV_a = sum_i s_i u_i v_i' and a later head b reads through
  K-composition  K_b Q_b'    (the key of a score)
  Q-composition  Q_b K_b'    (its query)
  V-composition  V_b O_b     (the value)
all [D, D]. The composition score of two matrices is |A B| / (|A| |B|), Frobenius norms (Elhage et al. 2021, A
Mathematical Framework for Transformer Circuits). `score` is that of OV_a whole. `component` is that of each
s_i u_i v_i' by itself, |v_i' B| / |B|, which does not depend on s_i: a channel of one or a few directions shows there,
while the score of the whole is unremarkable. Gains of norms are folded into what reads, and the mean of the stream is
taken off what is written and read (`nn.head_weights`).

The null has the singular values of OV_a and bases drawn at random in the stream without its mean, so that its v_i are
random orthonormal directions. `z` says by how many of its standard deviations the largest component of a pair exceeds
its mean; the null's largest component is taken over as many directions.

`subspace` edits what a head writes along some directions, at its site z or in its weights, exactly and alike.

Differs from the paper: standard scores against random bases of each pair, not against the other pairs.
"""
import dataclasses
from typing import Any, Mapping

import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import edits
from aspects import stats
from aspects.nn import head_weights

KINDS = {'k': 'key', 'q': 'query', 'v': 'value'}


@dataclasses.dataclass(frozen=True)
class TalkingHeads:
  """Composition of all pairs of heads of different layers, by `kinds`, from weights alone: call `of(net, variables)`.

  score [kind, writer, reader], component [kind, writer, reader, direction] in the order of singular values, largest and
  z [kind, writer, reader], null_mean and null_sd of the largest; writers and readers are called `layer.head`. NaN where
  the reader does not stand in a later layer. `draws` random bases make the null.
  """
  kinds: tuple[str, ...] = ('k', 'q', 'v')
  draws: int = 200
  seed: int = 0

  examples = ()                                      # a function of weights: no statistic of activations says it

  def __post_init__(self):
    if not self.kinds or not set(self.kinds) <= set(KINDS):
      raise ValueError(f'kinds {self.kinds} are to be of {", ".join(KINDS)}: composition of keys, queries, values')
    if self.draws < 2:
      raise ValueError(f'draws {self.draws} give the null no spread; give 2 or more, better hundreds')

  def needs(self, specs):
    raise ValueError('composition is read off weights and not off activations: TalkingHeads().of(net, variables)')

  def of(self, net, variables: Mapping) -> xr.Dataset:
    """The scores of all pairs of heads of a `Net`.

    Raises:
      ValueError: fewer than two layers, or weights that cannot be folded."""
    layers = head_weights.layers(net, variables['params'])
    if len(layers) < 2:
      raise ValueError(f'composition is between layers, and this network has {len(layers)}')
    centred = head_weights.CENTRED[net.norm['name']]
    names = [f'{l}.{h}' for l, heads in enumerate(layers) for h in range(len(heads.out))]
    written = [output_directions(heads.value[h], heads.out[h]) for heads in layers for h in range(len(heads.out))]
    size = max(len(s) for s, _ in written)
    shape = (len(self.kinds), len(names), len(names))
    out = {k: np.full(shape, np.nan) for k in ('score', 'largest', 'null_mean', 'null_sd', 'z')}
    out['component'] = np.full((*shape, size), np.nan)
    readers = [(l, h) for l, heads in enumerate(layers) for h in range(len(heads.out))]
    null = {}
    for c, kind in enumerate(self.kinds):
      for r, (l, h) in enumerate(readers):
        matrix = reading(layers[l], kind)[h]
        for w in (i for i, (before, _) in enumerate(readers) if before < l):
          s, v = written[w]
          each = component_scores(v, matrix)
          key = kind, r, len(s)
          null[key] = null[key] if key in null else largest_of_random(matrix, len(s), self.draws, self.seed, centred)
          out['component'][c, w, r, :len(s)] = each
          out['score'][c, w, r] = np.sqrt((s ** 2 * each ** 2).sum() / (s ** 2).sum())
          out['largest'][c, w, r] = each.max()
          out['null_mean'][c, w, r], out['null_sd'][c, w, r] = null[key].mean(), null[key].std(ddof=1)
    out['z'] = (out['largest'] - out['null_mean']) / out['null_sd']
    return self._dataset(names, out, size)

  def _dataset(self, names, values, size) -> xr.Dataset:
    pairs = ('kind', 'writer', 'reader')
    dims = {k: (*pairs, 'direction') if k == 'component' else pairs for k in values}
    coords = {'kind': list(self.kinds), 'writer': names, 'reader': names, 'direction': np.arange(size)}
    out = xr.Dataset({k: (dims[k], v) for k, v in values.items()}, coords, attrs=dict(
        aspect='correlations', title='Talking heads', question='Which heads read what an earlier head wrote?',
        source='Merullo et al. 2024, arXiv:2406.09519', draws=self.draws, headline='largest'))
    said = {'score': 'composition score of the whole circuits', 'component': 'composition score of one direction',
            'largest': 'largest composition score of a direction', 'null_mean': 'the same of random bases, mean',
            'null_sd': 'the same of random bases, standard deviation',
            'z': 'largest composition score in standard deviations of random bases'}
    for name in out:
      out[name].attrs = dict(long_name=said[name], units='1', figure='none')
    return out


def reading(heads: head_weights.Heads, kind: str) -> np.ndarray:
  """[H, D, D]: the matrix with which the heads of a layer read the stream on the side `kind`."""
  return {'k': heads.qk.transpose(0, 2, 1), 'q': heads.qk, 'v': heads.ov}[kind]


def output_directions(value: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(s [r], v [r, D]): singular values of value @ out ([D, d], [d, D]) and what they write along, r = its rank."""
  # of a product of thin matrices the decomposition is that of a d x d core
  left, right = np.linalg.qr(value), np.linalg.qr(out.T)
  _, s, vt = np.linalg.svd(left[1] @ right[1].T)
  kept = s > 1e-12 * s[0] if s[0] > 0 else np.ones(1, bool).repeat(len(s))
  return s[kept], (vt @ right[0].T)[kept]


def component_scores(v: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """[r]: the composition score of each direction v [r, D] of length 1 with a reading matrix [D, D]."""
  return np.linalg.norm(v @ matrix, axis=1) / np.linalg.norm(matrix)


def largest_of_random(matrix: np.ndarray, count: int, draws: int, seed: int, centred: bool) -> np.ndarray:
  """[draws]: the largest component score of `count` random orthonormal directions, without their mean if `centred`."""
  rng = np.random.default_rng(seed)
  def one(x):
    x = head_weights.off_mean(x, 0) if centred else x
    return component_scores(np.linalg.qr(x)[0].T, matrix).max()
  return np.array(stats.side_by_side(one, [rng.normal(size=(len(matrix), count)) for _ in range(draws)]))


# --- interventions --------------------------------------------------------------------------------------------------

class HeadMaps(edits.Edit):
  """Maps what each head holds, z [B, T, H, d], by a matrix of its own: z_h @ maps[h], `maps` [H, d, d]."""
  examples = ()
  maps: Any = None

  def change(self, x):
    return jnp.einsum('bthd,hde->bthe', x, jnp.asarray(self.maps, x.dtype))


def subspace(heads: head_weights.Heads, head: int, directions: np.ndarray, coefficient: float = 0.0) -> HeadMaps:
  """An edit of `z` of this layer: what `head` writes along `directions` [r, D] is multiplied by `coefficient`.

  The directions are ones in which the head writes (rows of `output_directions`, or combinations of them), of length 1
  and orthogonal. 0 removes them; 1 is the identity. What the head writes along the mean of the stream, which no norm
  lets through, may change with it.

  Raises:
    ValueError: a direction in which the head does not write."""
  maps = np.tile(np.eye(heads.out.shape[1]), (len(heads.out), 1, 1))
  maps[head] += (coefficient - 1) * _projection(heads.out[head], directions)
  return HeadMaps(maps=jnp.asarray(maps, jnp.float32))


def _projection(out: np.ndarray, directions: np.ndarray) -> np.ndarray:
  """M [d, d] with z M out = (z out) V' V for V = `directions` [r, D]."""
  directions = np.atleast_2d(directions)
  inverse = np.linalg.pinv(out)                                                  # [D, d]
  if np.abs(directions @ inverse @ out - directions).max() > 1e-6:
    raise ValueError('the head does not write along all of these directions; take rows of output_directions')
  return out @ directions.T @ directions @ inverse


def without(net, variables: Mapping, layer: int, head: int, directions: np.ndarray,
            coefficient: float = 0.0) -> dict[str, Any]:
  """Variables whose head `layer`.`head` writes `coefficient` times as much along `directions` [r, D]: a weight edit.

  The same as the edit of `subspace`, for networks whose stacks are not scanned."""
  name = head_weights.blocks(net, variables['params'])[layer][0]
  stage, block = name.split('/')
  heads = variables['params'][stage][block]['mixer']['heads']
  kernel = jnp.asarray(heads['out']['kernel'])
  move = (coefficient - 1) * np.atleast_2d(directions).T @ np.atleast_2d(directions)           # [D, D]
  edited = kernel.at[head].add(kernel[head] @ jnp.asarray(move, kernel.dtype))
  new_heads = {**heads, 'out': {**heads['out'], 'kernel': edited}}
  new_block = {**variables['params'][stage][block]}
  new_block['mixer'] = {**new_block['mixer'], 'heads': new_heads}
  params = {**variables['params'], stage: {**variables['params'][stage], block: new_block}}
  return {**variables, 'params': params}

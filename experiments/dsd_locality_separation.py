"""Role of Locality and Weight Sharing in Image-Based Tasks: CNNs, LCNs and FCNs on one signal in k patches
(Lahoti, Karp, Winston, Singh & Li 2024, arXiv:2403.15707).

Dynamic Signal Distribution: an image has k patches of d pixels; a label y = +-1 and a patch t are drawn
uniformly, x_t = y w* + sigma xi_t, every other patch is sigma xi_i, xi ~ N(0, I), and w*, |w*| = 1, is fixed
and unknown. Three networks with the soft threshold phi_b(z) = relu(z - b) - relu(-z - b), which silences
patches without signal, and k hidden units:
  cnn  sum_i phi_b(<w, x_i>)      shared filter w [d]
  lcn  sum_i phi_b(<w_i, x_i>)    a filter a patch, w [k, d]
  fcn  sum_i phi_b(<w_i, x>)      w [k, k d] on the whole image
Trained by an algorithm that commutes with rotations of its input, they need O(k + d), Omega(k d) and
Omega(k^2 d) samples (times sigma^2 and logarithms). For k = 1 the three are one network.

The metric is log2 of the number of samples at which the test error first reaches `target`, on a geometric grid,
with log-error interpolated in log n between the two neighbours; the last grid point counts twice where it is
never reached. Samples of a smaller n are the first of a larger one. Where all seeds of a block have reached it,
larger n are not run.

Differs from the paper: its upper bounds use two engineered steps with given biases and projections; here all
weights and the one bias b are trained by full-batch gradient descent on the logistic loss, with a rate tuned
for each network; b stays at or above 0 and moves `bias_rate` times as fast, without which many nets fall silent.
sigma does not shrink with k as the upper bounds ask. The output weights are one, as in the paper. A network that
is linear, b = 0, can at best err Phi(-1 / (sigma sqrt k)): at sigma = 0.25 that is 2, 8 and 16 % for k = 4, 8 and
16, so that only beyond k = 8 a target of 12.5 % asks for a threshold and for filters of different patches.
"""
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import train
from aspects.claims.rows import Cell, Rows
from aspects.plugin import nearest

NETWORKS = ('cnn', 'lcn', 'fcn')


class Draws(NamedTuple):
  """What the images of every k are made of: labels +-1 [N], the signal's place in 0..1 [N], noise [N, most, d]."""
  label: jax.Array
  place: jax.Array
  noise: jax.Array


def draw(key, chunks: int, chunk: int, most: int, d: int) -> Draws:
  """N = chunks * chunk rows for up to `most` patches; row i is the same for any number of chunks.

  All of a row is made of one draw of normals, and rows are drawn in chunks: XLA takes long to compile either otherwise.
  """
  def part(i):
    normal = jax.random.normal(jax.random.fold_in(key, i), (chunk, most * d + 2), 'float32')
    label = jnp.where(normal[:, -2] < 0, -1, 1).astype('float32')
    return Draws(label, jax.scipy.stats.norm.cdf(normal[:, -1]), normal[:, :-2].reshape(chunk, most, d))

  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(part, jnp.arange(chunks)))


def images(draws: Draws, w, k: int, sigma: float):
  """Images [N, k, d] of the distribution with signal `w` [d]; their labels are `draws.label`."""
  where = jax.nn.one_hot(jnp.minimum(draws.place * k, k - 1).astype('int32'), k, dtype='float32')
  return sigma * draws.noise[:, :k] + (draws.label[:, None] * where)[:, :, None] * w[None, None]


def soft_threshold(z, b):
  return jax.nn.relu(z - b) - jax.nn.relu(-z - b)


def initial(normal, network: str, k: int, d: int, spread: float, sigma: float):
  """(w, b) from standard `normal` [most, most * d]: filters of expected squared length spread^2, and b, one deviation
  of their outputs on noise. The filters of the three networks share their entries; at k = 1 they are the same."""
  w = dict(cnn=normal[0, :d], lcn=normal[:k, :d], fcn=normal[:k, :k * d])[network]
  return w * (spread / w.shape[-1] ** 0.5), jnp.float32(spread * sigma)


def apply(params, network: str, x):
  """Outputs [N] for images x [N, k, d]."""
  w, b = params
  if network == 'fcn':
    z = x.reshape(len(x), -1) @ w.T
  else:
    z = (x * (w if network == 'lcn' else w[None])[None]).sum(-1)
  return soft_threshold(z, b).sum(-1)


def fit(params, network: str, x, y, n, rate: float, bias_rate: float, steps: int, chunk: int):
  """Full-batch gradient descent on the logistic loss of the first `n` rows (traced: one program for every n), b >= 0.

  The gradient is summed over chunks of rows; the number of chunks follows n, so that a small n costs little.
  """
  def part(params, i):
    rows = i * chunk + jnp.arange(chunk)
    take = lambda a: jax.lax.dynamic_slice_in_dim(a, i * chunk, chunk)
    def loss(params):
      return (jax.nn.softplus(-take(y) * apply(params, network, take(x))) * (rows < n)).sum() / n
    return jax.grad(loss)(params)

  def step(params, _):
    zero = jax.tree.map(jnp.zeros_like, params)
    pull = jax.lax.fori_loop(0, (n + chunk - 1) // chunk,
                             lambda i, sums: jax.tree.map(jnp.add, sums, part(params, i)), zero)
    return (params[0] - rate * pull[0], jnp.maximum(params[1] - rate * bias_rate * pull[1], 0)), None

  return jax.lax.scan(step, params, None, steps)[0]


def crossing(sizes, errors, target: float) -> np.ndarray:
  """log2 of the n at which each row of `errors` [S, len(sizes)] first reaches `target`; see the head of this file."""
  sizes, errors = np.log2(np.asarray(sizes, float)), np.log(np.maximum(errors, 1e-4))
  found = np.full(len(errors), sizes[-1] + 1)
  for i, row in enumerate(errors):
    reached = np.flatnonzero(row <= np.log(target))
    if len(reached):
      j = reached[0]
      share = (row[j - 1] - np.log(target)) / (row[j - 1] - row[j]) if j else 1.0
      found[i] = sizes[j] - (1 - share) * (sizes[j] - sizes[j - 1]) if j else sizes[0]
  return found


@dataclasses.dataclass(frozen=True)
class DsdLocalitySeparation:
  """See the head of this file. Metrics: `log2_n_k<k>` for each k of `patches`, and `growth`, the second less the first
  of `compared` (two of `patches`). Curves: test error with n for these two, as far as it was run (then the last)."""
  network: str = 'cnn'
  patches: tuple[int, ...] = (1, 4, 8, 16)
  compared: tuple[int, int] = (4, 16)
  d: int = 10
  sigma: float = 0.25
  target: float = 0.125
  sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
  tests: int = 2048
  spread: float = 0.3
  rate: float = 1.0
  bias_rate: float = 0.1
  steps: int = 300
  chunk: int = 64

  def __post_init__(self):
    if self.network not in NETWORKS:
      raise ValueError(f'there is no network {self.network!r}; {nearest(self.network, NETWORKS)}')
    if not set(self.compared) <= set(self.patches) or len(self.compared) != 2:
      raise ValueError(f'compared {tuple(self.compared)} must be two of the patches {tuple(self.patches)}')
    if list(self.sizes) != sorted(set(self.sizes)) or len(self.sizes) < 2 or self.sizes[0] < 1:
      raise ValueError(f'sizes {tuple(self.sizes)} must rise from 1 or more; two or more are needed to interpolate')
    if not 0 < self.target < 0.5:
      raise ValueError(f'target {self.target} is not in (0, 0.5): guessing errs on one half')
    if min(self.patches) < 1 or self.sigma <= 0 or self.rate <= 0:
      raise ValueError(f'patches {tuple(self.patches)}, sigma {self.sigma}, rate {self.rate}: 1 or more, above 0, '
                       'above 0')

  def _error(self, data, n, k: int):
    """Test error of one seed after training on the first `n` rows; an output of 0 is wrong half of the time."""
    w, normal, test, rows = data
    start = initial(normal, self.network, k, self.d, self.spread, self.sigma)
    params = fit(start, self.network, images(rows, w, k, self.sigma), rows.label, n, self.rate, self.bias_rate,
                 self.steps, self.chunk)
    margin = apply(params, self.network, images(test, w, k, self.sigma)) * test.label
    return jnp.where(margin > 0, 0, jnp.where(margin < 0, 1, 0.5)).mean()

  def errors(self, seeds) -> dict[int, np.ndarray]:
    """{k: test errors [S, len(sizes)]}; where every seed has reached the target, the last ones are repeated."""
    seeds, found = np.asarray(seeds, np.uint32), {}
    data = _data(seeds, max(self.patches), self.d, self.chunk, self.tests, self.sizes[-1])
    for k in self.patches:
      table = []
      for n in self.sizes:
        table.append(np.asarray(_errors(self, k, data, np.int32(n)), np.float64))
        if (np.min(table, axis=0) <= self.target).all():
          break
      found[k] = np.stack(table + [table[-1]] * (len(self.sizes) - len(table)), axis=1)
    return found

  def rows(self, cell: Cell) -> Rows:
    with jax.default_matmul_precision('highest'):
      table = self.errors(cell.seeds)
    metrics = {f'log2_n_k{k}': crossing(self.sizes, table[k], self.target) for k in self.patches}
    few, many = self.compared
    metrics['growth'] = metrics[f'log2_n_k{many}'] - metrics[f'log2_n_k{few}']
    filters = dict(cnn=1, lcn=many, fcn=many ** 2)[self.network]
    return Rows(metrics=metrics, params=filters * self.d + 1, steps=self.steps,
                curves={f'test_error_k{k}@n': (np.asarray(self.sizes), table[k]) for k in self.compared})


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def _data(seeds, most: int, d: int, chunk: int, tests: int, rows: int):
  """w*, the numbers that start a network, the draws of the test rows and those of the training rows of every seed."""
  chunks = [-(-count // chunk) for count in (tests, rows)]

  def one(seed):
    keys = train.keys(jax.random.key(seed), 0, 'fixed', 'rows')
    fixed = jax.random.normal(keys['fixed'], (most + 1, most * d), 'float32')
    w, draws, end = fixed[-1, :d], draw(keys['rows'], sum(chunks), chunk, most, d), chunks[0] * chunk
    return w / jnp.linalg.norm(w), fixed[:-1], Draws(*(x[:end] for x in draws)), Draws(*(x[end:] for x in draws))

  return jax.vmap(one)(seeds)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _errors(procedure, k, data, n):
  return jax.vmap(lambda each: procedure._error(each, n, k))(data)

"""Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data (Dang et al. 2023, arXiv:2301.00437).

Free features H [N, d] of K classes of sizes n_k, M linear layers W_1 .. W_M without bias, one-hot targets Y:
  min |H W_1' .. W_M' - Y|^2 / (2 N) + decay / 2 (|W_1|^2 + .. + |W_M|^2 + |H|^2).
At every global minimiser (theorems for the squared error, equal decays), with a singular value s_k of every
factor for class k, the larger root of (sqrt(n_k) - s^(M+1)) s^(M-1) = N decay, or 0 where s = 0 costs less:
  - the features of a class are equal at every layer (NC1);
  - the class means at layer l (inputs of W_l) are orthogonal with lengths s_k^l / sqrt(n_k), and so are the rows
    of the product W_M .. W_l with lengths s_k^(M+1-l): for equal sizes both are orthogonal frames (NC2);
  - the rows of W_M .. W_l point where the class means at layer l do (NC3).
So with unequal sizes the classifier's rows grow with the class and, at small decay, the lengths of the feature
means *fall* with it, as n_k^(l / (2 (M + 1)) - 1 / 2) in the limit: both orders are measured.

Minimised here by gradient descent with Nesterov momentum from a small Gaussian initialisation, as the authors
do. Differs from the paper: its experiments with images are left out; so are cross-entropy and biases.
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from aspects import train
from aspects.claims.rows import Cell, Rows

POINTS = 12


def initial(seed, classes: int, width: int, layers: int, rows: int, spread: float):
  """(H [N, d], the square layers [M - 1, d, d], the last [K, d]), N(0, spread^2)."""
  key = train.keys(jax.random.key(seed), 0, 'init')['init']
  every = spread * jax.random.normal(key, (rows + (layers - 1) * width + classes, width), 'float32')
  features, square, last = jnp.split(every, (rows, len(every) - classes))
  return features, square.reshape(layers - 1, width, width), last


def objective(params, targets, decay: float):
  """The regularised squared error of the head of this file; `targets` [N, K]."""
  features, square, last = params
  out = features
  for w in square:
    out = out @ w.T
  error = ((out @ last.T - targets) ** 2).sum() / (2 * len(targets))
  return error + decay / 2 * sum((p ** 2).sum() for p in params)


def descend(params, targets, decay: float, rate: float, momentum: float, steps: int):
  """`params` at POINTS equally spaced steps, the first and the last included, along a leading axis, and the norms of
  the gradient there [POINTS]."""
  gradient = jax.grad(objective)

  def step(state, _):
    params, speed = state
    pull = gradient(params, targets, decay)
    speed = jax.tree.map(lambda v, g: momentum * v + g, speed, pull)
    params = jax.tree.map(lambda p, v, g: p - rate * (momentum * v + g), params, speed, pull)
    return (params, speed), None

  def stretch(state, _):
    state, _ = jax.lax.scan(step, state, None, steps // (POINTS - 1))
    return state, state[0]

  _, later = jax.lax.scan(stretch, (params, jax.tree.map(jnp.zeros_like, params)), None, POINTS - 1)
  path = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), params, later)
  pulls = jax.lax.map(lambda p: gradient(p, targets, decay), path)
  return path, sum((g.reshape(POINTS, -1) ** 2).sum(1) for g in pulls) ** 0.5


def singular_values(sizes, layers: int, decay: float) -> np.ndarray:
  """s_k [K] of every factor at the global minimiser: the minimum over s of the class's own part of the objective,
  (s^(M+1) - sqrt(n_k))^2 / (2 N) + decay (M + 1) s^2 / 2."""
  total, degree = sum(sizes), layers + 1
  found = []
  for n in sizes:
    part = np.zeros(2 * layers + 1)                  # the derivative over s, times N / (M + 1)
    part[2 * layers] = 1
    part[layers - 1] -= n ** 0.5
    part[0] += total * decay
    roots = np.roots(part[::-1])
    roots = np.append(roots[(abs(roots.imag) < 1e-9) & (roots.real > 0)].real, 0)
    cost = (roots ** degree - n ** 0.5) ** 2 / (2 * total) + decay * degree * roots ** 2 / 2
    found.append(roots[cost.argmin()])
  return np.array(found)


def geometry(params, sizes) -> dict[str, np.ndarray]:
  """What the theorems speak of, for one set of parameters, in float64 (lists over layers l = 1 .. M):

    nc1      tr(S_W S_B^+) / K at layer l, S_B about the mean of the class means
    means    class means [M, K, d] at the inputs of the layers
    rows     products W_M .. W_l [M, K, d]
  """
  features, square, last = (np.asarray(p, np.float64) for p in params)
  ends = np.cumsum(sizes)[:-1]
  nc1, means, rows, below = [], [], [], features
  for l in range(len(square) + 1):
    product = last
    for w in square[l:][::-1]:
      product = product @ w
    groups = np.split(below, ends)
    centre = np.stack([g.mean(0) for g in groups])
    spread = np.concatenate([g - c for g, c in zip(groups, centre)])
    about = centre - centre.mean(0)
    inverse = np.linalg.pinv(about.T @ about / len(sizes), rcond=1e-9, hermitian=True)
    nc1.append(np.trace(spread.T @ spread / len(spread) @ inverse) / len(sizes))
    means.append(centre)
    rows.append(product)
    below = below @ square[l].T if l < len(square) else below
  return dict(nc1=np.array(nc1), means=np.stack(means), rows=np.stack(rows))


def frame(vectors) -> float:
  """|G / |G| - I / sqrt(K)|, Frobenius norms, G the Gram matrix of `vectors` [K, d]: 0 for an orthogonal frame."""
  gram = vectors @ vectors.T
  return float(np.linalg.norm(gram / np.linalg.norm(gram) - np.eye(len(gram)) / len(gram) ** 0.5))


def summary(params, sizes, layers: int, decay: float) -> dict[str, float]:
  """The metrics of one seed, each the worst over the layers (see `NcDeepLinear`)."""
  found = geometry(params, sizes)
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  length = {name: np.linalg.norm(found[name], axis=-1) for name in ('means', 'rows')}          # [M, K]
  cosine = lambda x: np.abs(unit(x) @ unit(x).T)[~np.eye(len(x), dtype=bool)].max()
  scaled = lambda x: x / np.linalg.norm(x)
  s, power = singular_values(sizes, layers, decay), np.arange(1, layers + 1)[:, None]
  out = dict(nc1=found['nc1'].max(), nc2=max(frame(x) for x in (*found['means'], *found['rows'])),
             nc3=max(np.linalg.norm(scaled(r) - scaled(m)) for r, m in zip(found['rows'], found['means'])),
             cosine=max(cosine(x) for x in found['means']))
  expected = dict(means=s ** power / np.sqrt(sizes), rows=s ** (layers + 1 - power))
  out['lengths'] = max(np.abs(np.log(length[name] / expected[name])).max() for name in expected)
  by_size = np.argsort(sizes, kind='stable')
  step = lambda x: np.diff(np.log(x[:, by_size]), axis=1)
  out['rows_step'], out['means_step'] = step(length['rows']).min(), step(length['means']).max()
  return {name: float(value) for name, value in out.items()}


@dataclasses.dataclass(frozen=True)
class NcDeepLinear:
  """See the head of this file. Metrics, each the worst over the M layers:

    nc1, nc2, nc3   tr(S_W S_B^+) / K; distance of the normalised Gram matrices of class means and of rows of W_M .. W_l
                    from an orthogonal frame; distance between W_M .. W_l and the class means, each over its norm
    cosine          the largest |cosine| between two class means
    lengths         the largest |log| of the ratio of a length to that of the theorem (to its limit, without decay)
    rows_step       the least log-ratio of the lengths of the rows from a class to the next larger one
    means_step      the greatest such log-ratio of the lengths of the class means
    gradient        norm of the gradient at the end
  """
  sizes: tuple[int, ...] = (25, 25, 25, 25)
  width: int = 16
  layers: int = 3
  decay: float = 5e-4
  spread: float = 0.2
  rate: float = 0.2
  momentum: float = 0.9
  steps: int = 5500

  def __post_init__(self):
    if len(self.sizes) < 2 or min(self.sizes) < 2 or self.width < len(self.sizes):
      raise ValueError(f'sizes {tuple(self.sizes)}: two classes or more of two rows or more, and no more than '
                       f'width {self.width}, so that their means can be orthogonal')
    if self.layers < 1 or self.decay < 0 or self.spread <= 0:
      raise ValueError(f'layers {self.layers}, decay {self.decay}, spread {self.spread}: 1 or more, 0 or more, above 0')
    if not singular_values(self.sizes, self.layers, self.decay).all():
      raise ValueError(f'decay {self.decay} is so large that the minimiser drops a class of sizes {tuple(self.sizes)}; '
                       'its lengths and angles are then not defined, take a smaller one')
    if self.rate <= 0 or not 0 <= self.momentum < 1:
      raise ValueError(f'rate {self.rate} must be above 0 and momentum {self.momentum} in [0, 1)')
    if self.steps < POINTS - 1 or self.steps % (POINTS - 1):
      near = max(1, round(self.steps / (POINTS - 1))) * (POINTS - 1)
      raise ValueError(f'steps {self.steps} is not a multiple of {POINTS - 1}, the stretches of the curve; '
                       f'nearest: {near}')

  def _descent(self, seed):
    targets = np.repeat(np.eye(len(self.sizes), dtype='float32'), self.sizes, axis=0)
    params = initial(seed, len(self.sizes), self.width, self.layers, len(targets), self.spread)
    return descend(params, targets, self.decay, self.rate, self.momentum, self.steps)

  def rows(self, cell: Cell) -> Rows:
    sizes, total = self.sizes, sum(self.sizes)
    with jax.default_matmul_precision('highest'):
      path, gradient = _descents(self, np.asarray(cell.seeds, np.uint32))
    path, gradient = jax.tree.map(np.asarray, path), np.asarray(gradient, np.float64)
    finite = np.isfinite(gradient).all(1)
    table = [[summary([p[i, j] for p in path], sizes, self.layers, self.decay) if finite[i] else None
              for j in range(POINTS)] for i in range(len(cell.seeds))]
    names = summary([np.ones_like(p[0, 0]) for p in path], sizes, self.layers, self.decay)
    value = lambda name: np.array([[point[name] if point else np.nan for point in row] for row in table])
    metrics = {name: value(name)[:, -1] for name in names}
    at = np.arange(POINTS) * (self.steps // (POINTS - 1))
    return Rows(
        metrics=dict(metrics, gradient=gradient[:, -1]), diverged=~finite, steps=self.steps,
        params=self.width * (total + (self.layers - 1) * self.width + len(sizes)),
        curves={'nc1@step': (at, value('nc1')), 'nc2@step': (at, value('nc2'))})


@functools.partial(jax.jit, static_argnums=0)
def _descents(procedure, seeds):
  return jax.vmap(procedure._descent)(seeds)

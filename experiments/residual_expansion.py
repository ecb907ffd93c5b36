"""On residual network depth: the expansion of a residual tower over its paths (Dherin & Munn 2025, arXiv:2510.03470).

A tower of n modules, z_i = z_{i-1} + lam M_i(z_{i-1}), is a sum over paths, arranged by their length:
  z_n = z_0 + lam sum_i M_i(z_0) + lam^2 sum_{i<j} DM_j(z_0) M_i(z_0) + O(lam^3),
where the later module is the one that is differentiated. For linear modules the sum over all 2^n paths is
exact. The order k has C(n, k) paths, so that the output explodes with n for lam = 1 and stays finite for lam =
n^-1 or n^-1/2.

Three numbers come of it, all for randomly initialised modules of one width, without a normalisation:
  growth       slope of log(|z_n| / |z_0|) with n at lam = n^scaling, a module; modules are W2 relu(W1 z), drawn so that
               E|M(z)|^2 = |z|^2, for which E|z_n|^2 = (1 + lam^2)^n |z_0|^2
  order_slope  slope of log(error) with log(c) at lam = c / n and n = `expanded`, where error is the distance of z_n and
               its expansion up to `order`, over |z_n|, for modules W2 act(W1 z) in float64
  expansion_*  the largest coordinate of the difference between a tower of `linear` linear modules at lam = 1 and the
               sum over its paths, and the largest coordinate of the tower, in float32 and in float64

Differs from the paper: no training, encoder or decoder, dense modules in place of convolutions. The growth
needs modules that scale with their input: bounded ones such as tanh make the stream grow only like sqrt(n) at
lam = 1. The paper's theorem asks for smooth modules: with relu the power of c scatters over nets
(2.8 +- 0.5), which makes it no control. `paths` has two that are: 'short' leaves out the one path through all
modules, 'reversed' multiplies the Jacobians in the wrong order.
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from aspects import train
from aspects.claims.rows import Cell, Rows
from aspects.nn.activations import activation
from aspects.plugin import nearest

PATHS = ('all', 'short', 'reversed')


def draw(seed, count: int, width: int):
  """One net, drawn in float32 so that it is the same net in float64.

  Returns W1 and W2 of `count` modules, N(0, 1 / width), each [count, width, width], and a z_0 ~ N(0, I) [width].
  """
  keys = train.keys(jax.random.key(seed), 0, 'modules', 'start')
  weights = jax.random.normal(keys['modules'], (2, count, width, width), 'float32') / width ** 0.5
  return weights[0], weights[1], jax.random.normal(keys['start'], (width,), 'float32')


def growth(weights, start, depths, scaling: float):
  """log(|z_n| / |z_0|) [len(depths)] of the towers of the first n modules at lam = n^scaling, with relu."""
  depths = np.asarray(depths)
  lam = jnp.asarray(depths.astype(float) ** scaling, start.dtype)

  def layer(z, inputs):                              # z [depths, width]: all towers at once
    (first, second), i = inputs
    step = jax.nn.relu(z @ first.T) @ second.T
    return z + jnp.where(i < depths, lam, 0)[:, None] * step, None

  z = jnp.tile(start[None], (len(depths), 1))
  z, _ = jax.lax.scan(layer, z, (weights, jnp.arange(len(weights[0]))))
  return jnp.log(jnp.linalg.norm(z, axis=-1) / jnp.linalg.norm(start))


def taylor(module, weights, start):
  """The sums of the expansion without their powers of lam: first order and second order, each like `start`.

  `module(w, z)` is one module. The scan carries the sum of the modules before j, which module j's Jacobian meets.
  """
  def add(sums, w):
    first, second = sums
    out, tangent = jax.jvp(lambda z: module(w, z), (start,), (first,))
    return (first + out, second + tangent), None

  sums, _ = jax.lax.scan(add, (jnp.zeros_like(start), jnp.zeros_like(start)), weights)
  return sums


def tower(module, weights, start, lam):
  """z_n of z_i = z_{i-1} + lam M_i(z_{i-1})."""
  return jax.lax.scan(lambda z, w: (z + lam * module(w, z), None), start, weights)[0]


def truncation(act, weights, start, strengths, order: int):
  """Relative errors [len(strengths)] of the expansion up to `order` at lam = c / n, for each c of `strengths`."""
  module = lambda w, z: w[1] @ act(w[0] @ z)
  first, second = taylor(module, weights, start)
  count = len(weights[0])

  def error(c):
    lam = c / count
    z = tower(module, weights, start, lam)
    guess = start + lam * first + (lam ** 2 * second if order == 2 else 0)
    return jnp.linalg.norm(z - guess) / jnp.linalg.norm(z)

  return jax.lax.map(error, jnp.asarray(strengths, start.dtype))


def along_paths(matrices, start, paths: str):
  """The sum over the paths of the tower of linear modules `matrices` [n, width, width] at lam = 1, like `start`."""
  count = len(matrices)
  taken = (np.arange(2 ** count)[:, None] >> np.arange(count)) & 1         # [2^n, n]
  if paths == 'short':
    taken = taken[:-1]                                                     # the last row takes every module
  if paths == 'reversed':
    matrices = matrices[::-1]

  def path(modules):
    step = lambda p, inputs: (jnp.where(inputs[1], inputs[0] @ p, p), None)
    return jax.lax.scan(step, start, (matrices, modules))[0]

  return jax.vmap(path)(jnp.asarray(taken, bool)).sum(0)


def slope(x, y):
  """Least-squares slopes [S] of the rows of y [S, K] on x [K], in float64."""
  x = np.asarray(x, np.float64) - np.mean(x)
  return np.asarray(y, np.float64) @ x / (x @ x)


@dataclasses.dataclass(frozen=True)
class ResidualExpansion:
  """See the head of this file. `scaling` is the power of n in lam, `order` that of the last term kept (1 or 2)."""
  width: int = 64
  depths: tuple[int, ...] = (4, 8, 16, 32, 64)
  scaling: float = -1.0
  expanded: int = 16
  strengths: tuple[float, ...] = (0.05, 0.09, 0.16, 0.28, 0.5)
  activation: str = 'tanh'
  order: int = 2
  linear: int = 6
  paths: str = 'all'

  def __post_init__(self):
    activation(self.activation)
    for field in ('depths', 'strengths'):
      values = getattr(self, field)
      if len(values) < 2 or min(values) <= 0 or list(values) != sorted(set(values)):
        raise ValueError(f'{field} {tuple(values)} must rise and be above 0, two or more, for a slope')
    if self.order not in (1, 2):
      raise ValueError(f'order {self.order} is not 1 or 2, the orders whose terms are written down')
    if self.paths not in PATHS:
      raise ValueError(f'there are no paths {self.paths!r}; {nearest(self.paths, PATHS)}')
    if not 2 <= self.linear <= 10:
      raise ValueError(f'linear {self.linear} is not in 2..10: 2^linear paths are summed one by one')
    if min(self.width, self.expanded) < 2:
      raise ValueError(f'width {self.width} and expanded {self.expanded} must be 2 or more')

  def _measure(self, seed):
    """All numbers of one seed, by name; runs with float64 enabled."""
    first, second, start = draw(seed, max(max(self.depths), self.expanded, self.linear), self.width)
    double = lambda x: x.astype('float64')
    few = (double(first[:self.expanded]), double(second[:self.expanded]))
    found = dict(
        growth=growth((first * 2 ** 0.5, second), start, self.depths, self.scaling),
        error=truncation(activation(self.activation), few, double(start), self.strengths, self.order))
    for dtype in ('float32', 'float64'):
      matrices, z = second[:self.linear].astype(dtype), start.astype(dtype)
      whole = tower(lambda w, z: w @ z, matrices, z, 1.0)
      found[f'expansion_error_{dtype}'] = jnp.abs(along_paths(matrices, z, self.paths) - whole).max()
      found[f'expansion_scale_{dtype}'] = jnp.abs(whole).max()
    return found

  def rows(self, cell: Cell) -> Rows:
    with jax.default_matmul_precision('highest'), jax.enable_x64(True):
      found = _measured(self, np.asarray(cell.seeds, np.uint32))
      found = {name: np.asarray(values, np.float64) for name, values in found.items()}
    ratio, errors = found.pop('growth'), found.pop('error')
    metrics = dict(found, growth=slope(self.depths, ratio),
                   order_slope=slope(np.log(self.strengths), np.log(errors)))
    return Rows(metrics=metrics, params=2 * max(self.depths) * self.width ** 2,
                curves={'log_growth@depth': (np.asarray(self.depths), ratio),
                        'expansion_error@c': (np.asarray(self.strengths), errors)})


@functools.partial(jax.jit, static_argnums=0)
def _measured(procedure, seeds):
  return jax.vmap(procedure._measure)(seeds)

"""Losses and curvature on the straight line between two sets of parameters.

The barrier is that of Frankle et al. (2020, arXiv:1912.05671), curvature explains it after Singh et al. (2024,
arXiv:2406.16300). With f(a) = loss((1 - a) p + a q) and d = q - p, the barrier is the largest excess of f over its
chord, and for every smooth loss the excess at the midpoint is exactly a mean of the curvature along the way,

  f(1/2) - (f(0) + f(1)) / 2 = -1/2 int_0^1 min(a, 1 - a) f''(a) da,   f''(a) = d' H(a) d,

(twice by parts), so that what is flat at both ends may still have a barrier. Parameters are any pytrees of floats,
equal in structure. The first four functions are pure and may be compiled and mapped.
"""
from typing import Any, Callable, Iterable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Barrier(NamedTuple):
  """The loss at n even points from the first to the second end [n]; its largest excess over the chord; that at 1/2."""
  curve: Array
  barrier: Array
  midpoint: Array


def lmc_barrier(loss: Callable[[Any], Array], p: Any, q: Any, n: int = 21,
                layers: Iterable[str] | None = None) -> Barrier:
  """The barrier between parameters `p` and `q`, in units of the loss, at `n` points (odd, so that one is the midpoint).

  `layers`: only these keys of `p` move, the others stay as in `p`. A barrier is 0 where the chord lies above.
  Raises:
    ValueError: n even or below 3, or a layer that `p` has not."""
  if n < 3 or n % 2 == 0:
    raise ValueError(f'n is {n}; give an odd number of points from 3, of which one is the midpoint')
  q = q if layers is None else moved(p, q, layers)
  shares = jnp.linspace(0, 1, n)
  curve = jax.lax.map(lambda a: loss(between(p, q, a)), shares)
  excess = curve - (curve[:1] * (1 - shares) + curve[-1:] * shares)
  return Barrier(curve, excess.max(), excess[n // 2])


def moved(p: dict, q: dict, layers: Iterable[str]) -> dict:
  """`p` with the entries `layers` of `q`."""
  layers = tuple(layers)
  if missing := [name for name in layers if name not in p]:
    raise ValueError(f'there is no layer {missing[0]!r}; layers: {", ".join(map(str, p))}')
  return {name: q[name] if name in layers else value for name, value in p.items()}


def between(p: Any, q: Any, a: Array) -> Any:
  """The parameters at share `a` of the way from `p` to `q`; exactly these at 0 and 1."""
  return jax.tree.map(lambda x, y: (1 - a) * x + a * y, p, q)


def segment_curvature(loss: Callable[[Any], Array], p: Any, q: Any, n: int = 21) -> Array:
  """d' H d at `n` even points from `p` to `q` [n], by Hessian-vector products (Pearlmutter 1994)."""
  d = jax.tree.map(lambda x, y: y - x, p, q)
  def at(a):
    product = jax.jvp(jax.grad(loss), (between(p, q, a),), (d,))[1]
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(d), jax.tree.leaves(product)))
  return jax.lax.map(at, jnp.linspace(0, 1, n))


def midpoint_from_curvature(curvature: np.ndarray) -> np.ndarray:
  """The excess at the midpoint that curvature [..., n] at even points implies: [...].

  Simpson's rule on either half, as the weight has a kink between them; exact if f is of degree four or less.
  Raises:
    ValueError: n - 1 is no multiple of 4."""
  curvature = np.asarray(curvature, np.float64)
  n = curvature.shape[-1]
  if n < 5 or (n - 1) % 4:
    raise ValueError(f'curvature is given at {n} points; Simpson on either half needs 5, 9, 13, ...')
  half = (n + 1) // 2
  rule = np.where(np.arange(half) % 2, 4., 2.)
  rule[[0, -1]] = 1
  weights = np.zeros(n)
  weights[:half] += rule
  weights[half - 1:] += rule
  shares = np.linspace(0, 1, n)
  return -(curvature * np.minimum(shares, 1 - shares) * weights).sum(-1) / (6 * (n - 1))


def midpoint_from_ends(curvature: np.ndarray) -> np.ndarray:
  """The same from the two end points alone, as if the curvature were linear between them: -(f''(0) + f''(1)) / 16."""
  curvature = np.asarray(curvature, np.float64)
  return -(curvature[..., 0] + curvature[..., -1]) / 16

"""Cross-moments of maps under all circular shifts, in one pass, by frequencies (Wiener 1930, Khinchin 1934)."""
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats

Array = jax.Array


class ShiftMoments(NamedTuple):
  """n positions of all examples; mean {site: [D]}; cross {(site, other): [H, W, D, E]} for sites in order.

  cross[s] is the sum over examples and positions p of (x[p] - mean) (y[p + s] - mean)', positions taken modulo H, W.
  """
  n: Any
  mean: Any
  cross: Any


class _ShiftState(NamedTuple):
  n: stats.Sum
  mean: stats.Sum                    # [sum of widths]
  spectrum: tuple[stats.Sum, ...]    # per pair of sites in order: real and imaginary parts [2, H, W // 2 + 1, D, E]
  grid: Array                        # H and W, int32


def grid(spec, class_tokens: int = 0) -> tuple[int, int]:
  """Height and width of a map [B, H, W, D], of tokens [B, T, D] in reading order, or 1, 1 of rows [B, D].

  Raises:
    ValueError: tokens that are no square after the `class_tokens`, or another number of axes."""
  if len(spec.shape) == 4:
    return spec.shape[1], spec.shape[2]
  if len(spec.shape) == 2:
    return 1, 1
  tokens = spec.shape[1] - class_tokens if len(spec.shape) == 3 else 0
  side = math.isqrt(max(tokens, 0))
  if side * side != tokens or tokens < 1:
    raise ValueError(f'a tensor of shape {spec.shape} with {class_tokens} class tokens is no map: give [B, H, W, D], '
                     'or [B, T, D] with a square number of tokens in reading order, and say with class_tokens how many '
                     'tokens before them are no positions')
  return side, side


@dataclasses.dataclass(frozen=True)
class ShiftCovariance:
  """Cross-moments of all pairs of maps under all H x W circular shifts: ShiftMoments.

  All sites have one H and W; the first `class_tokens` of [B, T, D] are left out. A batch is transformed over its
  positions; each pair is then one product a frequency, so that a shift costs no product of its own. Memory is four
  floats for each of H (W // 2 + 1) D E, a pair: twice H W matrices [D, E], whatever the number of examples. An example
  with masked positions has no whole map and does not count.
  """
  sites: tuple[str, ...]
  class_tokens: int = 0

  def check(self, specs) -> tuple[int, int]:
    """Height and width of all maps.

    Raises:
      ValueError: a site is no map, or maps differ in size; names them."""
    grids = {}
    for s in self.sites:
      try:
        grids[s] = grid(specs[s], self.class_tokens)
      except ValueError as error:
        raise ValueError(f'site {s!r}: {error}') from error
    if len(set(grids.values())) > 1:
      raise ValueError(f'maps of different sizes cannot be shifted onto each other: {grids}; choose sites of one stage')
    return grids[self.sites[0]]

  def init(self, specs):
    height, width = self.check(specs)
    t = functools.reduce(jnp.promote_types, (stats.working(specs[s].dtype) for s in self.sites))
    d = [specs[s].shape[-1] for s in self.sites]
    zeros = lambda *shape: stats.Sum.zeros(shape, t)
    spectra = tuple(zeros(2, height, width // 2 + 1, d[i], d[j]) for i, j in self._pairs())
    return _ShiftState(zeros(), zeros(sum(d)), spectra, jnp.array([height, width], jnp.int32))

  def _pairs(self):
    return [(i, j) for i in range(len(self.sites)) for j in range(i, len(self.sites))]

  def update(self, state, acts, batch):
    means, waves = [], []
    for s in self.sites:
      n, mean, wave = self._waves(acts[s], batch)
      means.append(mean)
      waves.append(wave)
    mean = stats.Sum(*(jnp.concatenate([getattr(m, part) for m in means]) for part in ('hi', 'lo')))
    spectra = []
    for i, j in self._pairs():
      product = jnp.einsum('bhwd,bhwe->hwde', waves[i].conj(), waves[j], precision=jax.lax.Precision.HIGHEST)
      spectra.append(stats.Sum(jnp.stack([product.real, product.imag]), 0))
    return self.merge(state, _ShiftState(stats.Sum(n, jnp.zeros_like(n)), mean, tuple(spectra), state.grid))

  def _waves(self, x: Array, batch) -> tuple[Array, stats.Sum, Array]:
    """(positions, mean [D], transform [B, H, W // 2 + 1, D] of the centred maps times the root of the weight)."""
    height, width = grid(x, self.class_tokens)
    weight = batch['weight'].astype(stats.working(x.dtype))
    if 'mask' in batch and x.ndim == 3 and batch['mask'].shape == x.shape[:2]:
      weight = weight * (batch['mask'][:, self.class_tokens:].min(1) > 0)
    x = x[:, self.class_tokens:] if x.ndim == 3 else x
    rows = x.astype(weight.dtype).reshape(-1, x.shape[-1])
    n, mean, rows = stats.centre(rows, jnp.repeat(weight, height * width))
    return n, mean, jnp.fft.rfft2(rows.reshape(-1, height, width, x.shape[-1]), axes=(1, 2))

  def merge(self, a, b):
    n, mean, left, right = stats.joint(a.n, a.mean, b.n, b.mean)
    widths = [state.hi.shape[-1] for state in a.spectrum[:len(self.sites)]]
    edges = np.cumsum([0] + widths)
    spans = [slice(p, q) for p, q in zip(edges[:-1], edges[1:])]
    spectra, shifts = [], a.grid.prod().astype(left.dtype)
    for (i, j), x, y in zip(self._pairs(), a.spectrum, b.spectrum):
      # Another mean adds n times an outer product to every shift: to frequency 0, as often as there are shifts.
      moved = sum(state.n.value() * by[spans[i]][:, None] * by[spans[j]][None] for state, by in ((a, left), (b, right)))
      spectra.append(x.plus(y).plus(jnp.zeros_like(x.hi).at[0, 0, 0].set(shifts * moved)))
    return _ShiftState(n, mean, tuple(spectra), a.grid)

  def finish(self, state):
    n, mean, spectra, (height, width) = stats.float64(state)
    widths = [spectrum.shape[-1] for spectrum in spectra[:len(self.sites)]]
    edges = np.cumsum([0] + widths)
    cross = {(self.sites[i], self.sites[j]): np.fft.irfft2(real + 1j * imaginary, (height, width), axes=(0, 1))
             for (i, j), (real, imaginary) in zip(self._pairs(), spectra)}
    return ShiftMoments(n, {s: mean[edges[i]:edges[i + 1]] for i, s in enumerate(self.sites)}, cross)

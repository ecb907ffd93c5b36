"""Masks of kernels: how many weights each may keep, which have the highest scores, and masks as text."""
import base64
from typing import Any, Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aspects.nn import kernels

Score = Callable[[str, np.ndarray], np.ndarray]


def plan(evidence: Mapping[str, Any], budget: float, last: float, score: Score) -> dict:
  """Keeps floor(budget * weights) of all kernels: those that score highest within their kernel.

  Biases and gains are not pruned and not counted. Weights that are zero are pruned already. All kernels lose the same
  share of what is left of them, the last one, of the output layer, `last` times that share.

  Args:
    score: (path, weights) -> array of the same shape.
  """
  if not 0 < budget <= 1:
    raise ValueError(f'budget is {budget!r}; it is the share of the weights that may stay, above 0 and up to 1')
  if not 0 < last <= 1:
    raise ValueError(f'the rate of the output layer is {last!r} of the others\'; it must be above 0 and up to 1')
  paths = kernels.in_order(evidence['net'], evidence['params'], evidence['inputs'])
  flat = {path: np.asarray(w) for path, w in kernels.flatten(evidence['params']).items() if path in paths}
  left = [int(np.count_nonzero(flat[path])) for path in paths]
  whole = sum(flat[path].size for path in paths)
  keep = shares(left, [1.] * (len(paths) - 1) + [last], int(budget * whole + 1e-9))
  masks = {path: highest(score(path, flat[path]), flat[path] != 0, n) for path, n in zip(paths, keep)}
  return {'cost': sum(keep) / whole, 'masks': {path: pack(mask) for path, mask in masks.items()}}


def shares(left: Sequence[int], rates: Sequence[float], total: int) -> list[int]:
  """What parts of `left` items keep, `total` in all, if each loses the share min(1, rate * p) of its items.

  What rounding down leaves over goes to the largest fractions. No more is kept than there is."""
  if sum(left) <= total:
    return list(left)
  def kept(p):
    return np.array([n * (1 - min(1., rate * p)) for n, rate in zip(left, rates)])
  low, high = 0., 1 / min(rates)
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (low, middle) if kept(middle).sum() <= total else (middle, high)
  out = np.floor(kept(high) + 1e-9).astype(int)
  fractions = kept(high) - out
  out[np.argsort(-fractions, kind='stable')[:total - out.sum()]] += 1
  return out.tolist()


def highest(score: np.ndarray, alive: np.ndarray, count: int) -> np.ndarray:
  """Which `count` of the `alive` entries score highest, bool of their shape; of equal ones the first."""
  order = np.argsort(np.where(alive, -score.astype(np.float64), np.inf).reshape(-1), kind='stable')
  mask = np.zeros(score.size, bool)
  mask[order[:count]] = True
  return mask.reshape(score.shape)


def pack(mask: np.ndarray) -> dict[str, Any]:
  """A mask as JSON: its shape and its bits in base64."""
  return {'shape': list(mask.shape), 'bits': base64.b64encode(np.packbits(mask).tobytes()).decode()}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
  bits = np.frombuffer(base64.b64decode(packed['bits']), np.uint8)
  return np.unpackbits(bits)[:int(np.prod(packed['shape']))].astype(bool).reshape(packed['shape'])


def tree(params, plan: Mapping[str, Any]) -> dict:
  """The masks of a plan as a tree like `params`, bool; True for all that is not pruned."""
  flat = {path: np.ones(jnp.shape(w), bool) for path, w in kernels.flatten(params).items()}
  return kernels.unflatten(flat | {path: unpack(packed) for path, packed in plan['masks'].items()})


def apply(params, mask):
  """`params` with zeros where `mask` is False; zeros keep their sign, so that an open mask changes no bit."""
  return jax.tree.map(lambda w, m: jnp.where(m | (w == 0), w, jnp.zeros_like(w)), params, mask)

"""Units of hidden layers: which weights feed one and which read it, and two units made one.

Summing what feeds two units and averaging what reads them keeps the function if the units are fed alike and the
nonlinearity is positively homogeneous, mean(v) relu(z + z) = (v_1 + v_2) relu(z) (Chen et al. 2024, arXiv:2310.06756).
"""
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax.numpy as jnp
import numpy as np

from aspects.nn import kernels


class Units(NamedTuple):
  """A hidden layer of `size` units: `feeds` and `reads` are pairs of a parameter's path and its axis of units."""
  name: str
  size: int
  feeds: tuple[tuple[str, int], ...]
  reads: tuple[tuple[str, int], ...]


def hidden(net, params, inputs, names: Sequence[str] = ()) -> tuple[Units, ...]:
  """The hidden layers called `names`, in forward order; without names all that can be merged.

  A hidden layer lies between two dense layers of which the second is used right after the first. It can be merged if
  nothing else reads it and the nonlinearity is positively homogeneous: scaling each unit up where it is fed and down
  where it is read, by powers of two, then changes nothing. `inputs` [N, ...] are for this test; noise will do.

  Raises:
    ValueError: a layer of `names` does not exist or cannot be merged, or none can.
  """
  flat = kernels.flatten(params)
  order = kernels.in_order(net, params, inputs)
  found = {}
  for path, reader in zip(order, order[1:]):
    name, (before, after) = path.rpartition('/')[0], (flat[path].shape, flat[reader].shape)
    if len(before) == len(after) == 2 and before[1] == after[0]:
      bias = ((f'{name}/bias', 0),) if f'{name}/bias' in flat else ()
      found[name] = Units(name, before[1], ((path, 1), *bias), ((reader, 0),))
  if missing := [name for name in names if name not in found]:
    raise ValueError(f'there is no hidden layer {missing[0]!r} between two dense layers; there are {list(found)}')
  fit = {name: scales(net, params, inputs, units) for name, units in found.items() if name in (names or found)}
  if refused := [name for name, fits in fit.items() if not fits and (names or not any(fit.values()))]:
    raise ValueError(f'units of {refused} cannot be merged: scaling them where they are fed and back where they are '
                     'read changes the output; the nonlinearity is not positively homogeneous (relu is, gelu and tanh '
                     'are not), or something else reads them, such as a residual connection')
  if not fit:
    raise ValueError(f'no hidden layer lies between two dense layers; the kernels in forward order: {list(order)}')
  return tuple(found[name] for name, fits in fit.items() if fits)


def scales(net, params, inputs, units: Units) -> bool:
  """Whether scaling the units by powers of two where they are fed, and back where they are read, changes nothing."""
  flat = kernels.flatten(params)
  factor = 2. ** (np.arange(units.size) % 4)
  for sign, uses in ((1, units.feeds), (-1, units.reads)):
    for path, axis in uses:
      shape = [-1 if k == axis else 1 for k in range(flat[path].ndim)]
      by = np.broadcast_to(factor.reshape(shape) ** sign, flat[path].shape)
      flat[path] = flat[path] * by.astype(flat[path].dtype)
  a, b = (np.asarray(net.apply({'params': p}, inputs), np.float64) for p in (params, kernels.unflatten(flat)))
  return bool(np.abs(a - b).max() <= 1e-5 * np.abs(a).max())


# --- plans ----------------------------------------------------------------------------------------------------------

Pick = Callable[[np.ndarray, int, int], tuple[int, int]]


def plans(evidence: Mapping[str, Any], budgets: Sequence[float], pick: Pick, names: Sequence[str] = ()) -> list[dict]:
  """A plan for each budget, all of one sequence of merges, in which layers take turns in proportion to their sizes.

  A budget stops it when each layer has floor(budget * size) units, at least one. `pick(distance, layer, merges)`
  chooses the pair i < j; `distance` [size, size] is inf on the diagonal and where a unit is gone.
  """
  for budget in budgets:
    check_budget(budget)
  layers = hidden(evidence['net'], evidence['params'], evidence['inputs'], names)
  merging, out = Merging(evidence['params'], layers), {}
  for budget in sorted(set(budgets), reverse=True):
    target = [max(int(budget * units.size + 1e-9), 1) for units in layers]
    while waiting := [k for k, groups in enumerate(merging.groups) if len(groups) > target[k]]:
      done = {k: layers[k].size - len(merging.groups[k]) for k in waiting}
      k = min(waiting, key=lambda k: done[k] / layers[k].size)
      merging.merge(k, *pick(merging.distance[k], k, done[k]))
    out[budget] = {'cost': sum(map(len, merging.groups)) / sum(units.size for units in layers),
                   'layers': [{'name': units.name, 'feeds': [list(use) for use in units.feeds],
                               'reads': [list(use) for use in units.reads],
                               'groups': [list(group) for group in groups.values()]}
                              for units, groups in zip(layers, merging.groups)]}
  return [out[budget] for budget in budgets]


def check_budget(budget: float) -> None:
  if not 0 < budget <= 1:
    raise ValueError(f'budget is {budget!r}; it is the share that may stay, above 0 and up to 1')


class Merging:
  """Hidden layers while their units are merged, in float64; a unit that is gone has weights of zero."""

  def __init__(self, params, layers: Sequence[Units]):
    self.layers = layers
    flat = kernels.flatten(params)
    self.weights = {path: np.array(flat[path], np.float64) for units in layers for path, _ in units.feeds + units.reads}
    self.groups = [{i: (i,) for i in range(units.size)} for units in layers]
    self.distance = [np.stack([self._distances(units, i) for i in range(units.size)]) for units in layers]

  def _matrices(self, units: Units) -> list[np.ndarray]:
    """What the distance is made of, [size, ...] each: kernels; biases do not count."""
    return [np.moveaxis(self.weights[path], axis, 0) for path, axis in units.feeds + units.reads
            if self.weights[path].ndim > 1]

  def _distances(self, units: Units, i: int) -> np.ndarray:
    out = sum(((w - w[i]) ** 2).sum(1) for w in self._matrices(units))
    out[i] = np.inf
    return out

  def merge(self, k: int, i: int, j: int) -> None:
    """Unit j of layer k joins unit i: fed by the sum, read by the mean over the group."""
    units, groups = self.layers[k], self.groups[k]
    a, b = len(groups[i]), len(groups[j])
    uses = [(path, axis, 1., 1.) for path, axis in units.feeds]
    uses += [(path, axis, a / (a + b), b / (a + b)) for path, axis in units.reads]
    for path, axis, first, second in uses:
      w = np.moveaxis(self.weights[path], axis, 0)
      self._shift(k, path, -1, w[i], w[j])
      w[i], w[j] = first * w[i] + second * w[j], 0
      self._shift(k, path, 1, w[i])
    groups[i] += groups.pop(j)
    row = np.where(np.isinf(self.distance[k][i]), np.inf, self._distances(units, i))
    self.distance[k][i] = self.distance[k][:, i] = row
    self.distance[k][j] = self.distance[k][:, j] = np.inf

  def _shift(self, k: int, path: str, sign: int, *values: np.ndarray) -> None:
    """Takes weights of `path` into the distances of the layer at its other end, or out of them."""
    for other, units in enumerate(self.layers):
      if other != k and path in [p for p, _ in units.feeds + units.reads]:
        for v in values:
          self.distance[other] += sign * (v[:, None] - v[None]) ** 2


def merge(params, plan: Mapping[str, Any]) -> dict:
  """Smaller parameters of the same tree: what feeds the units of a group is summed, what reads them averaged."""
  flat = kernels.flatten(params)
  for layer in plan['layers']:
    order = np.concatenate([np.asarray(group) for group in layer['groups']])
    sizes = np.array([len(group) for group in layer['groups']])
    starts = np.cumsum(sizes) - sizes
    for mean, uses in ((False, layer['feeds']), (True, layer['reads'])):
      for path, axis in uses:
        w = np.asarray(flat[path])
        total = np.add.reduceat(w.take(order, axis).astype(np.promote_types(w.dtype, np.float32)), starts, axis)
        shape = [-1 if k == axis else 1 for k in range(w.ndim)]
        flat[path] = (total / sizes.reshape(shape) if mean else total).astype(w.dtype)
  return kernels.unflatten({path: jnp.asarray(w) for path, w in flat.items()})

"""The usual procedure of a claim: train an arm, measure it, reduce what was found to one number a metric and seed."""
import dataclasses
import math
from typing import Any, Callable, Mapping

import jax
import numpy as np
import xarray as xr

from aspects import inference
from aspects import plugin
from aspects import study
from aspects import train
from aspects.claims.rows import Cell, Rows

POINTS = 12                                          # of a curve that is kept for the page
REDUCTIONS: dict[str, Callable] = {
    'last': lambda x: x[:, -1], 'first': lambda x: x[:, 0], 'mean': lambda x: x.mean(1),
    'median': lambda x: np.median(x, 1),
    'sum': lambda x: x.sum(1), 'max': lambda x: x.max(1), 'min': lambda x: x.min(1), 'sd': lambda x: x.std(1, ddof=1),
    'cv': lambda x: x.std(1, ddof=1) / x.mean(1), 'ratio': lambda x: x[:, -1] / x[:, 0],
    'difference': lambda x: x[:, -1] - x[:, 0], 'range': lambda x: np.ptp(x, axis=1),
    'slope': lambda x: np.polyfit(np.arange(x.shape[1]), x.T, 1)[0],
    'rank': lambda x: inference.rank_correlation(x, np.arange(x.shape[1]))}


@dataclasses.dataclass(frozen=True)
class Training:
  """Trains with the one training loop and reads `metrics` off the curve and the measures.

  A metric is dict(source='training' or the name of a measure, variable=..., select={dim: index or (start, stop)},
  reduce=...). Of the analyses the last counts unless `select` or `reduce` names `step`. `reduce` is one of `REDUCTIONS`
  for all dims that are left, or {dim: reduction}, one after another; `share` is the sum over what `select` leaves,
  divided by the sum over all.
  """
  metrics: Mapping[str, Mapping[str, Any]]

  def rows(self, cell: Cell) -> Rows:
    # A single seed that diverges stops; among others it goes on to its end, and its row says so.
    check = train.check_finite if len(cell.seeds) == 1 else lambda state: None
    found = study.run_arm(cell.arm, cell.workdir, cell.preempted, cell.progress, check=check)
    values = {name: reduced(found.measures, spec, name) for name, spec in self.metrics.items()}
    return Rows(values, np.asarray(jax.device_get(found.state.bad)) >= 0, cell.arm.parameters,
                operations(cell.arm) * cell.arm.steps, cell.arm.steps, curves(found.measures, self.metrics))


def check(metrics: Mapping[str, Mapping], measures: Mapping[str, Any]) -> None:
  """Raises ValueError for a metric whose source or reduction does not exist."""
  for name, spec in metrics.items():
    where = f'claim.metrics.{name}'
    if 'source' not in spec or 'variable' not in spec:
      raise ValueError(f"{where} needs source ('training' or a measure of this config) and variable")
    if spec['source'] not in ('training', *measures):
      nearest = plugin.nearest(spec['source'], ['training', *measures])
      raise ValueError(f'{where}.source is {spec["source"]!r}; {nearest}')
    wanted = spec['reduce'] if 'reduce' in spec else 'last'
    for one in wanted.values() if isinstance(wanted, Mapping) else (wanted,):
      if one not in (*REDUCTIONS, 'share'):
        raise ValueError(f'{where}.reduce is {one!r}; {plugin.nearest(one, [*REDUCTIONS, "share"])}')


def reduced(measures: Mapping[str, xr.Dataset], spec: Mapping[str, Any], name: str) -> np.ndarray:
  """The metric of every seed [S].

  Raises:
    ValueError: a variable or dim that is not there; names the nearest."""
  found = measures[spec['source']]
  if spec['variable'] not in found:
    raise ValueError(f'metric {name!r}: {spec["source"]} has no variable {spec["variable"]!r}; '
                     f'{plugin.nearest(spec["variable"], found)}')
  whole = found[spec['variable']]
  select, reduce = dict(spec['select']) if 'select' in spec else {}, spec['reduce'] if 'reduce' in spec else 'last'
  if spec['source'] == 'training':
    whole = whole.isel(step=np.flatnonzero(np.isfinite(whole).any('seed').values))
  elif 'step' in whole.dims and 'step' not in select and not (isinstance(reduce, Mapping) and 'step' in reduce):
    whole = whole.isel(step=-1)
  for dim in (*select, *(reduce if isinstance(reduce, Mapping) else ())):
    if dim not in whole.dims:
      raise ValueError(f'metric {name!r}: {spec["variable"]} has no dim {dim!r}; {plugin.nearest(dim, whole.dims)}')
  part = whole.isel({dim: slice(*at) if isinstance(at, tuple) else at for dim, at in select.items()})
  if reduce == 'share':
    return _flat(part).sum(1) / _flat(whole.isel({d: i for d, i in select.items() if not isinstance(i, tuple)})).sum(1)
  if isinstance(reduce, Mapping):
    for dim, one in reduce.items():
      part = _along(part, dim, one)
    reduce = 'last'
  return REDUCTIONS[reduce](_flat(part))


def _flat(values: xr.DataArray) -> np.ndarray:
  """[S, everything else], with what a ragged axis lacks (NaN for all seeds) left out."""
  x = values.transpose('seed', ...).values.astype(np.float64)
  x = x.reshape(len(x), -1)
  return x[:, ~np.isnan(x).all(0)] if x.shape[1] > 1 else x


def _along(values: xr.DataArray, dim: str, reduction: str) -> xr.DataArray:
  moved = values.transpose(..., dim)
  flat = REDUCTIONS[reduction](moved.values.reshape(-1, moved.shape[-1]).astype(np.float64))
  return xr.DataArray(flat.reshape(moved.shape[:-1]), dims=moved.dims[:-1])


def curves(measures: Mapping[str, xr.Dataset], metrics: Mapping[str, Mapping]) -> dict[str, tuple]:
  """For the page: the first metric's training curve and the first profile over layers, {name@axis: (x, y [S, K])}."""
  out = {}
  for spec in metrics.values():
    da = measures[spec['source']][spec['variable']]
    if spec['source'] != 'training' and 'step' in da.dims:
      da = da.isel(step=-1)
    axes = [d for d in da.dims if d != 'seed']
    if len(axes) != 1 or f'{spec["variable"]}@{axes[0]}' in out or axes[0] in {k.split('@')[1] for k in out}:
      continue
    da = da.transpose('seed', axes[0])
    keep = np.unique(np.linspace(0, da.sizes[axes[0]] - 1, min(POINTS, da.sizes[axes[0]])).astype(int))
    x = da[axes[0]].values[keep]
    x = x if np.issubdtype(x.dtype, np.number) else keep
    out[f'{spec["variable"]}@{axes[0]}'] = (x, da.values[:, keep])
  return out


# --- budget ---------------------------------------------------------------------------------------------------------

def operations(arm: study.Arm) -> float:
  """Floating-point operations of one training step of one seed: its products and convolutions, two a multiply-add.

  Counted on the traced program, loops by their length, so that the number is the same on every device."""
  batch = jax.tree.map(lambda x: x[0], arm.streams.batch(0))
  state = jax.eval_shape(lambda: train.init(arm.net, arm.rule, arm.seeds[:1], arm.probe.example(),
                                            arm.config['analysis']['call']))
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)
  return count(jax.make_jaxpr(lambda s, b: train.step(arm.net, arm.rule, s, b))(one, batch).jaxpr)


def count(jaxpr) -> float:
  """Operations of the products and convolutions in a jaxpr; a while loop counts once, a branch as its dearest."""
  total = 0.
  for equation in jaxpr.eqns:
    kind, out = equation.primitive.name, equation.outvars[0].aval if equation.outvars else None
    if kind == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      total += 2. * math.prod(out.shape) * math.prod(equation.invars[0].aval.shape[d] for d in contracted)
    elif kind == 'conv_general_dilated':
      kernel, numbers = equation.invars[1].aval.shape, equation.params['dimension_numbers']
      total += 2. * math.prod(out.shape) * math.prod(kernel) / kernel[numbers.rhs_spec[0]]
    parts = [p for value in equation.params.values() for p in (value if isinstance(value, (tuple, list)) else (value,))]
    inner = [count(getattr(p, 'jaxpr', p)) for p in parts if hasattr(getattr(p, 'jaxpr', p), 'eqns')]
    if inner:
      total += (equation.params['length'] if kind == 'scan' else 1) * (max(inner) if kind == 'cond' else sum(inner))
  return total

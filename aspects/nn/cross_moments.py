"""What measures of all pairs of sites read off cross-moments: blocks, what varies, maps [site, other]."""
from typing import Callable, Mapping, Sequence
import warnings

import numpy as np
import xarray as xr

from aspects import stats

ROUNDING = 1e-24         # of the squared mean: far below one step of float32 in one of many rows, which does vary


def scatter(cross, site: str, other: str) -> np.ndarray:
  """The cross-scatter [D, E] of two sites of `CrossMoments`, in any order.

  That of a site with itself is exactly symmetric, and 0 for units whose scatter is only the rounding of a constant.

  Raises:
    ValueError: it holds NaN or infinity."""
  block = cross.scatter[site, other] if (site, other) in cross.scatter else cross.scatter[other, site].T
  if not np.isfinite(block).all():
    bad = site if not np.isfinite(cross.scatter[site, site]).all() else other
    raise ValueError(f'site {bad!r} has activations that are not finite, or too large to square in float32')
  if site != other:
    return block
  idle = np.diag(block) <= ROUNDING * cross.n * cross.mean[site] ** 2
  return np.where(idle[:, None] | idle[None], 0.0, (block + block.T) / 2)


def variance(cross, site: str) -> np.ndarray:
  """The scatter of each unit about its mean [D], 0 where it is only the rounding of a constant."""
  return np.diag(scatter(cross, site, site))


def varying(cross, consequence: str) -> dict[str, bool]:
  """{site: whether any unit varies}; a warning names the sites that do not, and the `consequence`."""
  found = {s: bool(variance(cross, s).any()) for s in cross.mean}
  if constant := [s for s, varies in found.items() if not varies]:
    warnings.warn(f'sites {constant} do not vary over the {cross.n:g} rows: {consequence}', stacklevel=3)
  return found


def enough(n: float, least: int, what: str) -> None:
  """Refuses too few rows.

  Raises:
    ValueError: `n` is below `least`; `what` needs them."""
  if n < least:
    raise ValueError(f'{what} at least {least} rows, got {n:g}; use more examples or pool=tokens')


def fill(names: Sequence[str], function: Callable[[str, str], tuple], forms: Sequence[str],
         among: Mapping[str, bool] | None = None) -> dict[str, np.ndarray]:
  """{form: [L, L]} of `function(site, other) -> (there, back)`, each a value for every form.

  It is called once a pair, sites in order; `back` are the values of [other, site]. Pairs of sites that are not `among`
  are NaN."""
  names = list(names)
  kept = [i for i, s in enumerate(names) if among is None or among[s]]
  pairs = [(i, j) for i in kept for j in kept if i <= j]
  values = np.full((len(forms), len(names), len(names)), np.nan)
  found = stats.side_by_side(lambda ij: function(names[ij[0]], names[ij[1]]), pairs)
  for (i, j), (there, back) in zip(pairs, found):
    values[:, j, i] = back
    values[:, i, j] = there
  return dict(zip(forms, values))


def maps(names: Sequence[str], values: Mapping[str, np.ndarray], said: Mapping[str, Mapping], **attrs) -> xr.Dataset:
  """`values` {variable: [L, L]} with dims (site, other); `said` has the attributes of each, `attrs` those of all."""
  names = list(names)
  out = xr.Dataset({k: (('site', 'other'), v) for k, v in values.items()}, {'site': names, 'other': names},
                   attrs={'aspect': 'correlations', **attrs})
  for variable in values:
    out[variable].attrs = {'units': '1', 'figure': 'map', **said[variable]}
  return out

"""Results of all pairs of sites, and the sample of rows that they are made of."""
from typing import Iterable, Mapping
import warnings

import numpy as np
import xarray as xr

from aspects.statistics.sample import Rows


def sampled(rows: Rows, least: int, what: str) -> int:
  """The number of rows of a sample.

  Raises:
    ValueError: fewer than `least` rows, or activations that are not finite; `what` needs them."""
  n = len(rows.index)
  if n < least:
    raise ValueError(f'{what} needs at least {least} rows, got {n}; use more examples or pool=tokens')
  for site, x in rows.x.items():
    if not np.isfinite(x).all():
      raise ValueError(f'site {site!r} has activations that are not finite')
  return n


def warn(sites: Iterable[str], what: str, outcome: str) -> None:
  """Names `sites` that have `what` in common and what becomes of them; nothing without sites."""
  if sites := list(sites):
    warnings.warn(f'sites {sites} {what}: {outcome}', stacklevel=4)


def dataset(names: list[str], variables: Mapping[str, tuple], **attrs) -> xr.Dataset:
  """Maps [site, other]: `variables` is {name: (values [L, L], attributes)}."""
  coords = {'site': names, 'other': names}
  values = {name: (('site', 'other'), value, dict(units='1') | about) for name, (value, about) in variables.items()}
  return xr.Dataset(values, coords, attrs={'aspect': 'correlations', **attrs})


def sample_attrs(n: int, pool: str, size: int, seed: int) -> dict:
  """What a result says of the sample that it was computed on."""
  return dict(pool=pool, rows=float(n), sample=f'at most {size} rows, drawn uniformly with seed {seed}')

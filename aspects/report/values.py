"""What a variable of a result is: its numbers in one layout, its mean over seeds, and which figure fits it.

A variable has the leading dims `seed` and `step` (either may be absent), then axes such as `site`, `other`, `head` or
`rank`; its attributes `long_name`, `units`, `figure`, `null`, `null_label`, `limits` say how it is shown."""
from typing import NamedTuple

from markupsafe import Markup
import numpy as np

from aspects import inference

KINDS = {'trajectory': 0, 'curve': 1, 'map': 2, 'heads': 2, 'spectrum': 2}     # figures and how many axes each shows
LEVEL = 0.05                                                                   # p and q above it are chance
RANKED = ('rank', 'unit', 'atom', 'class')      # beside `site`: a line per site, largest first


class Values(NamedTuple):
  """float64 `array` [seeds, steps, *axes], NaN where not finite; names of the axes and their labels."""
  array: np.ndarray
  steps: list
  axes: list[str]
  labels: list[list[str]]


def canonical(da, axes=None):
  """`da` as `Values` over `axes` (default: all); dims besides `seed`, `step` and `axes` are averaged."""
  da = da.astype(float)
  axes = [d for d in da.dims if d not in ('seed', 'step')] if axes is None else list(axes)
  da = da.where(np.isfinite(da)).mean([d for d in da.dims if d not in ('seed', 'step', *axes)], skipna=True)
  da = da.expand_dims([d for d in ('seed', 'step') if d not in da.dims]).transpose('seed', 'step', *axes)
  labels = [[f'{x:g}' if isinstance(x, float) else str(x) for x in da[d].values.tolist()] for d in axes]
  return Values(da.values, da['step'].values.tolist(), axes, labels)


def over_seeds(array):
  """Mean and 95 % t-interval over axis 0: NaN where a seed has no value, NaN bounds for one seed."""
  whole = np.isfinite(array).all(0)
  return inference.Interval(*(np.where(whole, x, np.nan) for x in inference.interval(np.where(whole, array, 0))))


def quantiles(da):
  """The sorted quantiles of `da`, empty if it has none."""
  has = 'quantile' in da.dims and da['quantile'].dtype.kind == 'f'
  return sorted(da['quantile'].values.tolist()) if has else []


def median(da):
  """`da` at the quantile nearest to the median, where it has quantiles."""
  return da.sel(quantile=0.5, method='nearest', drop=True) if quantiles(da) else da


def plan(da):
  """(kind, axes): which figure shows `da` and over which of its dims; the others are averaged.

  The attribute `figure` decides where the dims allow it, else the dims do. Of three axes or more, two are shown:
  `site` (or the first) and what the kind is about (or the next); a map keeps their order, rows first."""
  free = [d for d in da.dims if d not in ('seed', 'step') and not (d == 'quantile' and quantiles(da))]
  if len(free) < 2:
    return ('trajectory', 'curve')[len(free)], free
  first = 'site' if 'site' in free else free[0]
  rest = [d for d in free if d != first]
  about = next((d for d in rest if d in ('head', *RANKED)), rest[0])
  kind = da.attrs.get('figure')
  if KINDS.get(kind) != 2:
    kind = 'map' if first != 'site' else 'heads' if about == 'head' else 'spectrum' if about in RANKED else 'map'
  return kind, [d for d in free if d in (first, rest[0])] if kind == 'map' else [first, about]


def null_of(da, dataset):
  """The variable of `dataset` that `da` names as its null; None if it names none.

  Raises:
    ValueError: the Dataset lacks it."""
  name = da.attrs.get('null')
  if name and name not in dataset:
    raise ValueError(f'{da.name!r} names {name!r} as its null; its Dataset has {sorted(map(str, dataset))}')
  return dataset[name] if name else None


def null_label(da, most=100):
  """What the null of `da` is, in at most `most` letters, else 'null'."""
  label = str(da.attrs.get('null_label', 'null'))
  return label if len(label) <= most else 'null'


def long_name(da):
  return str(da.attrs.get('long_name') or da.name)


def is_untrained(steps, k):
  """Whether entry `k` of several steps is the network before training."""
  return steps[k] == 0 and len(steps) > 1


def step_name(steps, k):
  return 'untrained' if is_untrained(steps, k) else f'step {steps[k]:,}'


def number(x):
  """`x` with three digits, whole if it is an integer, and in full as machine-readable value."""
  text = f'{x:,.0f}' if abs(x) >= 1000 or isinstance(x, int) else f'{x:#.3g}'.rstrip('.')
  text = text.replace('-', '\N{MINUS SIGN}') if np.isfinite(x) else 'not defined'
  return Markup('<data value="{}">{}</data>').format(repr(float(x)), text)

"""Do Language Models Use Their Depth Efficiently? How much each sublayer adds to the stream (Csordas, Manning & Potts 2025, arXiv:2505.13898).

Of every row (a token, by default) of every layer:
  mixer_ratio, channel_ratio     |what the sublayer adds| / |the stream it is added to|
  mixer_cosine, channel_cosine   cosine of what it adds with that stream; below 0 it erases
  stream_cosine                  cosine of the stream before and behind the layer
  stream_norm                    |the stream behind the layer|
The stream before is `resid_pre`, or `resid_mid` for a second sublayer that reads it. On a plain stack, whose
`resid_pre` is the previous `resid_post`, `stream_cosine` is the cosine of consecutive layers.

Outliers: a few tokens (attention sinks, massive activations; Sun et al. 2024, arXiv:2402.17762) have norms hundreds of
times the median, and a mean, let alone a maximum, tells of them alone. So the curves are quantiles over rows and the
means stand beside; `outlier_share` is the share of rows whose stream exceeds `outlier` times the median norm;
`skip_first` leaves out the first positions, where sinks live.

Differs from the paper: it averages over tokens of language models; here is the distribution, in any residual network.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.sites import select
from aspects.statistics.histogram import Histogram, Histograms

QUANTILES = (.05, .25, .5, .75, .95)
SUBLAYERS = ('mixer', 'channel')
TEXTS = {
    'mixer_ratio': 'mixer: |added| / |stream|', 'channel_ratio': 'channel MLP: |added| / |stream|',
    'mixer_cosine': 'mixer: cosine with the stream', 'channel_cosine': 'channel MLP: cosine with the stream',
    'stream_cosine': 'cosine of the stream before and behind', 'stream_norm': 'norm of the stream'}


@dataclasses.dataclass(frozen=True)
class Distributions(Histogram):
  """A histogram without the first `skip_first` positions of each example, finished as {quantity: Histograms}."""
  skip_first: int = 0

  def update(self, state, acts, batch):
    def behind(x):
      flat = x.reshape(x.shape[0], -1, x.shape[-1])
      if flat.shape[1] <= self.skip_first:
        raise ValueError(f'skip_first {self.skip_first} leaves none of the {flat.shape[1]} positions of {x.shape}')
      return flat[:, self.skip_first:]
    if self.skip_first:
      acts = {s: behind(acts[s]) for s in self.sites}
      batch = dict(batch) | ({'mask': batch['mask'][:, self.skip_first:]} if 'mask' in batch else {})
    return super().update(state, acts, batch)

  def finish(self, state):
    whole = super().finish(state)
    row = lambda i: Histograms(whole.edges, *(column[i:i + 1] for column in whole[1:]))
    return {quantity: row(i) for i, quantity in enumerate(self.quantities)}


@dataclasses.dataclass(frozen=True)
class Contribution:
  """Norms and cosines of the sublayers' contributions: [quantile, site], their means [site], outliers [site].

  `sites` are the ends of the layers, `resid_post.*`. A layer without a sublayer is NaN there; a sublayer that no layer
  has is left out. Quantiles are exact to a factor 10**(1/64) for norms and ratios, counted between 1e-6 and 1e6, and to
  1/384 for cosines. Memory: a histogram for each quantity and layer.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'tokens'
  outlier: float = 100.
  skip_first: int = 0

  invariant = {}

  def __post_init__(self):
    if self.skip_first and self.pool != 'tokens':
      raise ValueError(f'skip_first {self.skip_first} leaves out positions, which pool {self.pool!r} joins; '
                       "use pool 'tokens'")

  def needs(self, specs):
    sizes, cosines = [], []
    for end in select(self.sites, specs):
      slot, _, layer = end.partition('.')
      if slot != 'resid_post':
        raise ValueError(f'contributions are of whole layers and {end!r} ends none; choose among resid_post.*')
      start, = select((f'resid_pre.{layer}',), specs)
      sizes.append(('norm', end))
      cosines.append(('cosine', start, end))
      stream = start
      for out in (f'{sublayer}_out.{layer}' for sublayer in SUBLAYERS):
        if out in specs:
          sizes.append(('ratio', out, stream))
          cosines.append(('cosine', out, stream))
        stream = f'resid_mid.{layer}' if f'resid_mid.{layer}' in specs else start
    make = lambda quantities, linear: Distributions(tuple(quantities), linear=linear, pool=self.pool,
                                                    skip_first=self.skip_first)
    return {'sizes': make(sizes, False), 'cosines': make(cosines, True)}

  def compute(self, sizes: dict[tuple, Histograms], cosines: dict[tuple, Histograms]) -> xr.Dataset:
    ends = [quantity[1] for quantity in sizes if quantity[0] == 'norm']
    blank = {}
    for quantity, histogram in (sizes | cosines).items():
      name, end = variable(quantity)
      quantiles, mean = blank.setdefault(name, np.split(np.full((len(QUANTILES) + 1, len(ends)), np.nan), [-1]))
      quantiles[:, ends.index(end)], mean[0, ends.index(end)] = histogram.quantile(QUANTILES)[0], histogram.mean[0]
    shares = [above(sizes['norm', end], self.outlier) for end in ends]
    values = {n: (('quantile', 'site'), blank[n][0]) for n in TEXTS if n in blank}
    values |= {f'{n}_mean': ('site', blank[n][1][0]) for n in TEXTS if n in blank} | {'outlier_share': ('site', shares)}
    out = xr.Dataset(values, {'quantile': list(QUANTILES), 'site': ends}, attrs=dict(
        aspect='depth', title='Contributions to the stream', question='How much does each layer change the stream?',
        source='Csordas, Manning & Potts 2025, arXiv:2505.13898', pool=self.pool, skip_first=self.skip_first,
        rows=float(sizes['norm', ends[0]].n[0]),
        headline=next(n for n in ('channel_ratio', 'mixer_ratio', 'stream_cosine') if n in blank)))
    for name in out:
      quantity = name.removesuffix('_mean')
      text = TEXTS[quantity] if quantity in TEXTS else f'share of rows over {self.outlier:g} median norms'
      mean = name != quantity
      out[name].attrs = dict(long_name=text + (', mean' if mean else ''), figure='none' if mean else 'curve',
                             units='units of the site' if quantity == 'stream_norm' else '1')
      if 'cosine' in name:
        out[name].attrs |= dict(limits=[-1, 1])
    return out


def variable(quantity: tuple[str, ...]) -> tuple[str, str]:
  """(variable, end of the layer): ('ratio', 'mixer_out.3', 'resid_pre.3') -> ('mixer_ratio', 'resid_post.3')."""
  slot, _, layer = quantity[1].partition('.')
  subject = slot.removesuffix('_out') if slot.endswith('_out') else 'stream'
  return f'{subject}_{quantity[0]}', f'resid_post.{layer}'


def above(norms: Histograms, factor: float) -> float:
  """Share of rows whose norm exceeds `factor` times the median, exact up to the rows in the bin it falls in."""
  below = np.concatenate([[0.], np.cumsum(norms.counts[0])])
  return 1 - np.interp(factor * norms.quantile(.5)[0, 0], norms.edges, below) / below[-1] if below[-1] else np.nan

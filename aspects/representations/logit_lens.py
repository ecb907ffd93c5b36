"""Interpreting GPT, the logit lens: what the network would say if it ended at this layer (nostalgebraist 2020, LessWrong).

The stream behind each layer is read by the network's own final norm and head, see `aspects.statistics.lens` for what is
reported. Behind the last layer it is the network itself: kl 0, agreement 1, rank 1, and its own loss.

Differs from the source: means over a stream of data instead of a picture of one text, the whole distribution (kl,
entropy) beside the top token, and networks of any kind. Classifiers that pool their tokens are read by putting the
whole stream of an example in the place of the last.
"""
import dataclasses

import xarray as xr

from aspects.sites import select
from aspects.statistics.lens import Lens, Readings

TEXTS = {'kl': ('KL divergence from the outputs of the network', 'nats'),
         'nll': ('cross-entropy of the label', 'nats'),
         'accuracy': ('accuracy', '1'),
         'agreement': ('share of rows with the same largest output as the network', '1'),
         'entropy': ('entropy of what is read', 'nats'),
         'rank': ('mean rank of the largest output of the network', '1')}


@dataclasses.dataclass(frozen=True)
class LogitLens:
  """What the end of the network reads in each stream: kl, nll, accuracy, agreement, entropy and rank, all [site].

  Args:
    sites: streams, of the shape of `final`; with 'embed' the curve begins in front of the first block.
    final: the stream that the end of the network reads.
    fold: the examples that count, see `aspects.stats`.
    batch_size: how many streams are read side by side; memory grows with that only.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  final: str = 'resid_post.-1'
  fold: str = 'all'
  batch_size: int = 1
  examples = ({}, {'sites': ('embed', 'resid_mid.1', 'resid_post.*'), 'fold': 'held', 'batch_size': 2})

  invariant = {}

  def needs(self, specs):
    final, = select((self.final,), specs)
    if 'logits' not in specs:
      raise ValueError("a lens reads the logits of the network, and it has no site 'logits'")
    return {'lens': Lens(select(self.sites, specs), final, fold=self.fold, batch_size=self.batch_size)}

  def compute(self, lens: Readings) -> xr.Dataset:
    out = xr.Dataset({name: ('site', lens.values[name]) for name in TEXTS if name in lens.values},
                     {'site': list(lens.streams)}, attrs=dict(
                         aspect='representations', title='Logit lens',
                         question='At which layer does the network know its answer?',
                         source='nostalgebraist 2020', fold=self.fold, rows=float(lens.rows[0]), headline='kl'))
    for name in out:
      out[name].attrs = dict(long_name=TEXTS[name][0], units=TEXTS[name][1], figure='curve')
      if name in ('accuracy', 'agreement'):
        out[name].attrs |= dict(limits=[0, 1])
    return out

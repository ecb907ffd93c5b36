"""Significance of CKA: is a pair of layers more alike than chance, and is the best pair? (Groger, Wen & Brbic 2026, arXiv:2602.14486).

Shuffling the examples of one layer breaks every correspondence and keeps both layers' geometry. The Gram matrices of
a sample are prepared once (see `aspects.nn.hsic`); a shuffle then costs an index and a product for all pairs together.
  p           (1 + #{null >= score}) / (1 + draws), of each pair on its own (Phipson & Smyth 2010, arXiv:1603.05766)
  p_best      the same against the largest of all pairs in each shuffle (Westfall & Young 1993), pairs standardised by
              the exact mean and deviation of their null (Kazi-Aoual et al. 1995): for "the most similar layers are ..."
  q           p after Benjamini & Hochberg (1995): for "the similar ones among these pairs are ..."
  calibrated  (score - null mean) / (1 - null mean): 0 is chance and 1 is equal, and nothing is clamped
Groger et al. put 0 at the 95 % quantile instead: (score - null_95) / (1 - null_95), clamped below; it is positive
exactly where p <= .05. One shuffle serves all pairs, so that layers of one network stay alike; p_best is exact for
pairs of two networks. Examples must be exchangeable: of frames of a film or neighbouring tokens every p is too small.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects import inference
from aspects.nn import cross_moments
from aspects.nn import hsic
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

LEVEL = .05


@dataclasses.dataclass(frozen=True)
class Significance:
  """Significance of the linear CKA of all pairs of `sites`, of one network or several: cka_linear_* [site, other].

  Over a fixed sample of at most `size` rows, four at least, by `draws` shuffles. The `song` estimator has null mean 0;
  that of `gretton` grows with the widths. The family of p_best and q is every pair of two different layers, once; a
  layer with itself has no p. A layer that does not vary has no CKA and is in no family: NaN, and a warning names it.
  The smallest p is 1 / (1 + draws), so q can be small only where draws outnumber the pairs by far.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  estimator: str = 'song'
  draws: int = 1000
  size: int = 256
  seed: int = 0

  examples = (dict(draws=199), dict(draws=99, estimator='gretton'))

  def __post_init__(self):
    hsic.check_estimator(self.estimator)
    if self.draws < 1 / LEVEL - 1:
      raise ValueError(f'{self.draws} draws have no p of {LEVEL}; give at least {round(1 / LEVEL) - 1}')

  @property
  def invariant(self):
    """Of the scores; a p at its smallest value does not move with what would change it."""
    return {f'{self._name}_{form}': ('permutation', 'rotation', 'scale', 'translation')
            for form in ('score', 'calibrated_score', 'null_95')}

  @property
  def _name(self):
    return f'cka_linear_{self.estimator}'

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 4, 'significance of CKA'), list(rows.x)
    order = np.lexsort((rows.position, rows.index))       # the shuffles are those of the data's own order
    grams = np.stack([unit_gram(x[order], self.estimator) for x in rows.x.values()])
    varies = grams.any((1, 2))
    pairs.warn([s for s, v in zip(names, varies) if not v], f'do not vary over the {n} rows',
               'they have no CKA and take part in no test')
    values = tested(grams, varies, self.draws, self.seed)
    return pairs.dataset(names, {f'{self._name}_{form}': (values[form], self._attrs(form)) for form in values},
                         title='Significance of centred kernel alignment',
                         question='Which layers are more alike than chance, and are the most similar ones?',
                         source='Groger, Wen & Brbic 2026, arXiv:2602.14486; Phipson & Smyth 2010',
                         headline=f'{self._name}_calibrated_score', draws=self.draws, estimator=self.estimator,
                         **pairs.sample_attrs(n, self.pool, self.size, self.seed))

  def _attrs(self, form):
    cka = f'linear CKA, {self.estimator}'
    said = {'score': (cka, 'map'), 'calibrated_score': (f'{cka}, above chance', 'map'),
            'p': (f'p of {cka}', 'map'), 'p_best': (f'p of {cka} as the best of all pairs', 'map'),
            'q': (f'false discovery rate of {cka}', 'map'),
            'null_mean': (f'{cka}, of shuffled examples, mean', 'none'),
            'null_95': (f'{cka}, of shuffled examples, 95 % quantile', 'none')}
    test = dict(test=f'{self._name}_q')
    extra = {'score': dict(null=f'{self._name}_null_mean', null_label='shuffled examples', **test,
                           registry=f'cka-kernel=linear-hsic={self.estimator}-score'),
             'calibrated_score': test}
    long_name, figure = said[form]
    return dict(long_name=long_name, figure=figure, limits=[0, 1], **(extra[form] if form in extra else {}))


def unit_gram(x: np.ndarray, estimator: str) -> np.ndarray:
  """The prepared Gram matrix [n, n] of rows [n, D], of norm 1, so that CKA is the inner product of two.

  Zeros where no unit varies."""
  mean = x.mean(0)
  x = x - mean
  x = x[:, (x ** 2).sum(0) > cross_moments.ROUNDING * len(x) * mean ** 2]
  gram = hsic.prepared(x @ x.T, estimator)
  norm = np.linalg.norm(gram)
  return gram / norm if norm > 0 else gram


def tested(grams: np.ndarray, varies: np.ndarray, draws: int, seed: int) -> dict[str, np.ndarray]:
  """{form: [L, L]}, symmetric, of prepared Gram matrices [L, n, n] of norm 1; NaN for those that do not vary."""
  null, exact = inference.gram_null(grams, grams, draws=draws, seed=seed), inference.gram_moments(grams, grams)
  above, void = np.triu_indices(len(grams), 1), ~np.outer(varies, varies)
  null.swapaxes(1, 2)[:, *above] = null[:, *above]       # a pair is tested once: its second layer is shuffled
  score = np.einsum('aij,bij->ab', grams, grams)
  np.fill_diagonal(score, 1)
  out = {'score': score, 'calibrated_score': inference.calibrated(score, exact.mean[None])}
  out |= {form: np.full_like(score, np.nan) for form in ('p', 'p_best', 'q')}
  i, j = (index[~void[above]] for index in above)
  if len(i):
    family = lambda x: ((x - exact.mean) / np.where(void, 1, exact.sd))[..., i, j]
    p = inference.p_value(family(score), family(null))
    p_best, q = inference.p_best(family(score), family(null)), inference.benjamini_hochberg(p)
    for form, value in (('p', p), ('p_best', p_best), ('q', q)):
      out[form][i, j] = out[form][j, i] = value
  out |= {'null_mean': exact.mean, 'null_95': inference.threshold(null, LEVEL)}
  return {form: np.where(void, np.nan, value) for form, value in out.items()}

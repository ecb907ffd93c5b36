"""Convergent learning: what two networks share, unit by unit and together (Li et al. 2015, arXiv:1511.07543).

For each seed two networks start apart and see the training images in different orders. Per hidden layer i, from 1:
  match_i      mean |correlation| of units matched one to one, on the test images
  over_null_i  match_i less the same with the images of every unit of the second network in an order of their own
  rare_i       share of the pairs of match_i below 0.5: features that the other network has not
  gap_i        R2 of a unit from all units of the other network, less the squared correlation with its best partner;
               fitted and chosen on the training images, scored on the test images, mean over units and both directions;
               R2 below 0 counts as 0, as a unit that is active on a few images only may have any
and as means over layers: `r2` and `single`, the two parts of the gap; `gap_null`, the gap with images shuffled as
above; `sparse_weights`, how many units of the other network an l1 penalty leaves on average while nine tenths of R2
are kept; `mixed`, how even spectral clusters of the units of both networks by |correlation| are, 1 if each is half and
half.
`accuracy` is the mean test accuracy of the two. Units that do not vary correlate 0 and are not predicted.

Differs from the paper: perceptrons on digits; absolute correlations, so that no sign decides; flat instead of
hierarchical clusters; the penalty is solved by accelerated proximal gradients (Beck & Teboulle 2009).
"""
import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from sklearn import cluster

from aspects import plugin
from aspects import sites as sites_lib
from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.correlations.unit_matching import RARE, match_units, unit_correlation
from aspects.statistics.cross_covariance import CrossMoments

POINTS = 12
KEPT = 0.9                                           # of R2, by the sparse map
NAMES = ('match', 'over_null', 'rare', 'gap')        # metrics of each layer
MEANS = ('r2', 'single', 'gap_null', 'sparse_weights', 'mixed')


class SparseMap(NamedTuple):
  """`weights` [D, E] from standardised units of one network to those of the other, and `r2` [E] on other rows."""
  weights: np.ndarray
  r2: np.ndarray


@dataclasses.dataclass(frozen=True)
class ConvergentLearning:
  """See the head of this file.

  Args:
    site: the layers that are compared.
    ridge: added to the variance of the standardised units that predict.
    penalties: l1 penalties that the sparse map tries, in standardised units.
    clusters: of the units of both networks.
  """
  site: str = 'resid_post.*'
  ridge: float = 1e-3
  penalties: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02, 0.01)
  clusters: int = 10

  def __post_init__(self):
    if self.ridge <= 0 or not self.penalties or min(self.penalties) <= 0:
      raise ValueError(f'ridge {self.ridge} and penalties {self.penalties} must be above 0')
    if self.clusters < 2:
      raise ValueError(f'clusters {self.clusters} divide nothing; give 2 or more')

  def rows(self, cell: Cell) -> Rows:
    starts = tuple(int(w) for s in cell.seeds for w in np.random.SeedSequence(s).generate_state(2))
    arm = study.build({**plugin.freeze(cell.arm.config), 'arms': {}, 'claim': None, 'seeds': starts}).arms['main']
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    pairs = lambda x: np.asarray(x).reshape(len(cell.seeds), 2, *np.shape(x)[1:])
    bad = (pairs(done.state.bad) >= 0).any(1)
    fit, test = ({s: pairs(x) for s, x in record(arm, done.state, split, self.site).items()}
                 for split in ('train', 'test'))
    each = [[self.layer(fit[s][k], test[s][k], seed) for s in fit] for k, seed in enumerate(cell.seeds) if not bad[k]]
    metrics = {f'{name}_{i}': _whole([pair[i - 1][0][name] for pair in each], bad)
               for i in range(1, len(fit) + 1) for name in NAMES}
    metrics |= {name: _whole([np.mean([layer[0][name] for layer in pair]) for pair in each], bad) for name in MEANS}
    metrics['accuracy'] = pairs(done.measures['training'].test_accuracy.values[:, -1]).mean(1)
    at = np.linspace(0, 1, POINTS)
    curves = {f'{name}@share_of_units': (at.round(3), _whole([quantiles(pair, k, at) for pair in each], bad))
              for k, name in ((1, 'matched'), (2, 'shuffled'))}
    operations = 2 * training.operations(arm) * arm.steps
    return Rows(metrics, bad, 2 * arm.parameters, operations, arm.steps, curves)

  def layer(self, fit: np.ndarray, test: np.ndarray, seed: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """(the metrics, matched correlations, the same shuffled) of a layer of both networks: [2, N, D] on either part."""
    rng = np.random.default_rng(seed)
    def shuffled(x):
      return np.stack([x[0], rng.permuted(x[1], axis=0)])
    true, null = ([moments(part) for part in parts] for parts in ((fit, test), (shuffled(fit), shuffled(test))))
    matched, by_chance = (match_units(np.abs(unit_correlation(part[1], 'a', 'b'))).correlation for part in (true, null))
    r2, single = self.explained(*true)
    weights = [sparse_weights(*true, x, y, self.penalties, self.ridge) for x, y in (('a', 'b'), ('b', 'a'))]
    out = dict(match=matched.mean(), over_null=matched.mean() - by_chance.mean(), rare=(matched < RARE).mean(),
               gap=r2 - single, r2=r2, single=single, gap_null=np.subtract(*self.explained(*null)),
               sparse_weights=np.mean(weights), mixed=mixed(*joint_clusters(test, self.clusters)))
    return out, matched, by_chance

  def explained(self, fit: CrossMoments, test: CrossMoments) -> tuple[float, float]:
    """(R2 from all units, squared correlation with the best partner), means over units and both directions."""
    both = []
    for x, y in (('a', 'b'), ('b', 'a')):
      live = varying(fit, y) & varying(test, y)
      weights = dense_map(fit, x, y, self.ridge)
      partner = match_units(np.abs(unit_correlation(fit, y, x)), 'semi').partner
      best = unit_correlation(test, y, x)[np.arange(len(partner)), partner] ** 2
      both.append((held_r2(weights, fit, test, x, y)[live].mean(), best[live].mean()))
    return tuple(np.mean(both, 0))


def record(arm, state, split: str, pattern: str) -> dict[str, np.ndarray]:
  """{site: [S, N, D]} of all networks on all images of a split, in forward order."""
  source, variables = arm.task.source(split), study.variables(arm, state)
  inputs = source[np.arange(len(source))]['input']
  names = sites_lib.select((pattern,), sites_lib.sites(arm.net, jax.tree.map(lambda x: x[0], variables), inputs[:1]))
  run = jax.jit(jax.vmap(lambda v: sites_lib.record_sites(arm.net, v, (inputs,), names, {}, {})[1]))
  acts = jax.device_get(run(variables))
  return {s: acts[s] for s in names}


def moments(x: np.ndarray) -> CrossMoments:
  """Of one layer of two networks [2, N, D], as sites a and b, in float64."""
  x = dict(zip('ab', np.asarray(x, np.float64)))
  mean = {s: v.mean(0) for s, v in x.items()}
  x = {s: v - mean[s] for s, v in x.items()}
  return CrossMoments(len(x['a']), mean, {k: x[k[0]].T @ x[k[1]] for k in (('a', 'a'), ('a', 'b'), ('b', 'b'))}, None)


def varying(cross: CrossMoments, site: str) -> np.ndarray:
  """Which units vary [D]."""
  return np.diag(unit_correlation(cross, site, site)) > 0


def correlations(cross: CrossMoments, site: str, other: str) -> np.ndarray:
  """Those of the units of two sites [D, E], with 1 on the diagonal of a site with itself also for units at rest."""
  c = unit_correlation(cross, site, other)
  return c + np.diag(~varying(cross, site)) if site == other else c


def dense_map(fit: CrossMoments, x: str, y: str, ridge: float) -> np.ndarray:
  """Weights [D, E] of the regression of the standardised units of `y` on those of `x`."""
  return np.linalg.solve(correlations(fit, x, x) + ridge * np.eye(len(fit.mean[x])), correlations(fit, x, y))


def held_r2(weights: np.ndarray, fit: CrossMoments, test: CrossMoments, x: str, y: str) -> np.ndarray:
  """R2 [E] of the units of `y` on the rows of `test`, at least 0, predicted by `weights` [D, E] of units standardised
  on `fit`."""
  scale = {s: np.sqrt(np.where(varying(fit, s), np.diag(fit.scatter[s, s]) / fit.n, 1)) for s in (x, y)}
  weights = weights * varying(fit, x)[:, None] / scale[x][:, None] * scale[y]
  cross = test.scatter[x, y] if (x, y) in test.scatter else test.scatter[y, x].T
  total = np.diag(test.scatter[y, y])
  shift = test.mean[y] - fit.mean[y] - (test.mean[x] - fit.mean[x]) @ weights
  left = (total - 2 * (weights * cross).sum(0) + (weights * (test.scatter[x, x] @ weights)).sum(0)
          + test.n * shift ** 2)
  return np.maximum(1 - left / np.where(total > 0, total, 1), 0)


def sparse_map(fit: CrossMoments, test: CrossMoments, x: str, y: str, l1: float, steps: int = 300) -> SparseMap:
  """Predicts units of `y` from few of `x`: half the mean squared error of standardised units and `l1` times |weights|.

  Solved on the correlations of `fit` by `steps` of FISTA (Beck & Teboulle 2009, doi:10.1137/080716542)."""
  gram, target = correlations(fit, x, x), unit_correlation(fit, x, y)
  rate = 1 / np.linalg.eigvalsh(gram)[-1]
  weights, ahead, pace = np.zeros_like(target), np.zeros_like(target), 1.0
  for _ in range(steps):
    moved = ahead - rate * (gram @ ahead - target)
    new = np.sign(moved) * np.maximum(np.abs(moved) - rate * l1, 0)
    faster = (1 + np.sqrt(1 + 4 * pace ** 2)) / 2
    ahead, weights, pace = new + (pace - 1) / faster * (new - weights), new, faster
  return SparseMap(weights, held_r2(weights, fit, test, x, y))


def sparse_weights(fit, test, x: str, y: str, penalties, ridge: float) -> float:
  """How many units of `x` a unit of `y` is predicted from on average, by the strongest of `penalties` that keeps `KEPT`
  of the mean R2 of all; all of them if none does."""
  live = varying(fit, y) & varying(test, y)
  enough = KEPT * held_r2(dense_map(fit, x, y, ridge), fit, test, x, y)[live].mean()
  for l1 in sorted(penalties, reverse=True):
    found = sparse_map(fit, test, x, y, l1)
    if found.r2[live].mean() >= enough:
      return float((found.weights[:, live] != 0).sum(0).mean())
  return float(varying(fit, x).sum())


def joint_clusters(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
  """(cluster, network) of each unit that varies: spectral clusters of the units of both networks [2, N, D] by
  |correlation|."""
  cross = moments(x)
  live = {s: varying(cross, s) for s in 'ab'}
  block = lambda s, t: np.abs(unit_correlation(cross, s, t))[np.ix_(live[s], live[t])]
  joint = np.block([[block('a', 'a'), block('a', 'b')], [block('b', 'a'), block('b', 'b')]])
  model = cluster.SpectralClustering(min(k, len(joint) - 1), affinity='precomputed', random_state=0)
  return model.fit_predict(np.clip((joint + joint.T) / 2, 0, 1)), np.repeat([0, 1], [live[s].sum() for s in 'ab'])


def mixed(label: np.ndarray, network: np.ndarray) -> float:
  """Twice the units of the network that has fewer in each cluster, over all units: 1 if every cluster is even."""
  counts = np.array([np.bincount(network[label == c], minlength=2) for c in np.unique(label)])
  return float(2 * counts.min(1).sum() / counts.sum())


def quantiles(pair, k: int, at: np.ndarray) -> np.ndarray:
  """Matched correlations of all layers of a pair, largest first, at shares `at` of the units: [len(at)]."""
  return np.quantile(np.concatenate([layer[k] for layer in pair]), 1 - at)


def _whole(values: list, bad: np.ndarray) -> np.ndarray:
  """`values` of the pairs that trained, among all [S, ...]; NaN for the others."""
  values = np.asarray(values, np.float64)
  out = np.full((len(bad), *values.shape[1:]), np.nan)
  out[~bad] = values
  return out

"""Which layer of another network is the most similar? (Kornblith et al. 2019, arXiv:1905.00414, section 6.1).

Several networks of one architecture are trained from starts of their own. For every ordered pair of them and every
hidden layer of the first, the layer of the second that is most similar is looked up; metrics are the share of these
that is the corresponding layer: `cka` (linear, debiased), `cka_gretton` (linear, biased), `pwcca`, `svcca`, `cca` (mean
squared), and `advantage`, cka - pwcca. Chance is 1 / layers. `cka_shuffled` is cka with the examples of every network
in an order of their own, which leaves spectra alike and no example in its place; `accuracy` is the mean test accuracy.

Differs from the paper: perceptrons on digits instead of convolutional networks on CIFAR-10, and CKA is debiased; all
hidden layers and all test examples are used, as there.
"""
import dataclasses
import warnings

import jax
import numpy as np

from aspects import plugin
from aspects import sites as sites_lib
from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.correlations.cca import Cca
from aspects.correlations.cka import Cka
from aspects.statistics.cross_covariance import CrossMoments

FORMS = {'cka': 'cka_linear_song', 'cka_gretton': 'cka_linear_gretton', 'pwcca': 'pwcca', 'svcca': 'svcca_mean',
         'cca': 'cca_mean_squared'}


@dataclasses.dataclass(frozen=True)
class LayerIdentification:
  """`networks` of the arm's architecture for each seed of the claim, started from numbers that the seed gives."""
  networks: int = 10
  site: str = 'resid_post.*'

  def __post_init__(self):
    if self.networks < 2:
      raise ValueError(f'networks {self.networks} make no pair; give 2 or more')

  def rows(self, cell: Cell) -> Rows:
    starts = tuple(int(w) for s in cell.seeds for w in np.random.SeedSequence(s).generate_state(self.networks))
    arm = study.build({**plugin.freeze(cell.arm.config), 'arms': {}, 'claim': None, 'seeds': starts}).arms['main']
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    group = lambda values: np.asarray(values).reshape(len(cell.seeds), self.networks, *np.shape(values)[1:])
    bad = (group(done.state.bad) >= 0).any(1)
    acts = {site: group(x) for site, x in self.record(arm, done.state).items()}
    found = [self.found({site: x[k] for site, x in acts.items()}, seed) if not bad[k] else None
             for k, seed in enumerate(cell.seeds)]
    missing = dict.fromkeys([*FORMS, 'cka_shuffled'], np.full(len(acts), np.nan))
    layers = {name: np.stack([(each or missing)[name] for each in found]) for name in missing}
    metrics = {name: value.mean(1) for name, value in layers.items()}
    metrics['advantage'] = metrics['cka'] - metrics['pwcca']
    metrics['accuracy'] = group(done.measures['training'].test_accuracy.values[:, -1]).mean(1)
    depth = np.arange(1, len(acts) + 1)
    curves = {f'{name}@layer': (depth, layers[name]) for name in ('cka', 'pwcca')}
    operations = training.operations(arm) * arm.steps * self.networks
    return Rows(metrics, bad, arm.parameters * self.networks, operations, arm.steps, curves)

  def record(self, arm, state) -> dict[str, np.ndarray]:
    """{site: [S, N, ...]} of all networks on all examples of the analysis, in forward order."""
    batch, variables = arm.probe.example(), study.variables(arm, state)
    one = jax.tree.map(lambda x: x[0], variables)
    names = sites_lib.select((self.site,), sites_lib.sites(arm.net, one, batch['input']))
    run = jax.jit(jax.vmap(lambda v, x: sites_lib.record_sites(arm.net, v, (x,), names, {}, {})[1], in_axes=(0, None)))
    parts = []
    for k in range(len(arm.probe)):
      batch = arm.probe.batch(k)
      real = batch['weight'] > 0
      parts.append({site: np.asarray(x)[:, real] for site, x in run(variables, batch['input']).items()})
    return {site: np.concatenate([part[site] for part in parts], 1) for site in names}

  def found(self, acts, seed: int) -> dict[str, np.ndarray]:
    """The share identified [L] of each layer by each index, for one group: acts {site: [S, N, ...]}."""
    rows = {(net, site): x[net] for net in range(self.networks) for site, x in acts.items()}
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(len(next(iter(rows.values())))), (self.networks, 1)), axis=1)
    shuffled = {(net, site): x[orders[net]] for (net, site), x in rows.items()}
    with warnings.catch_warnings():
      # A layer whose units are as many as the examples, or that is constant, is identified by chance at best.
      warnings.simplefilter('ignore', UserWarning)
      cross = moments(rows)
      every = {**Cka().compute(cross=cross), **Cca().compute(cross=cross)}
      mixed = Cka().compute(cross=moments(shuffled))['cka_linear_song']
    out = {name: identified(every[variable].values, self.networks) for name, variable in FORMS.items()}
    return out | {'cka_shuffled': identified(mixed.values, self.networks)}


def moments(acts) -> CrossMoments:
  """What the streamed statistic gives for acts {name: [N, ..., D]}, positions flattened, of all rows at once.

  Compiling one program for the pairs of some ninety sites takes longer than training their networks.
  """
  names = [f'{a}/{b}' for a, b in acts]
  x = [np.asarray(v, np.float64).reshape(len(v), -1) for v in acts.values()]
  mean = [v.mean(0) for v in x]
  x = [v - m for v, m in zip(x, mean)]
  both = np.concatenate(x, 1)
  edges = np.cumsum([0] + [v.shape[1] for v in x])
  product = both.T @ both
  scatter = {(a, b): product[edges[i]:edges[i + 1], edges[j]:edges[j + 1]]
             for i, a in enumerate(names) for j, b in enumerate(names) if i <= j}
  length = np.stack([(v ** 2).sum(1) for v in x])
  return CrossMoments(len(both), dict(zip(names, mean)), scatter, length @ length.T)


def identified(similarity: np.ndarray, networks: int) -> np.ndarray:
  """How often the layer of another network that is most similar is the same one: [S L, S L] -> [L].

  Rows are the layers that are looked for; of equal values the first counts, and one that is not a number never.
  """
  layers = len(similarity) // networks
  known = np.where(np.isnan(similarity), -np.inf, similarity).reshape(networks, layers, networks, layers)
  right = known.argmax(3) == np.arange(layers)[None, :, None]          # [A, layer, B]
  right &= np.isfinite(known.max(3))
  others = ~np.eye(networks, dtype=bool)
  return right.transpose(1, 0, 2)[:, others].mean(1)

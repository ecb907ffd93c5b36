"""Topological RSA: which layer of a network do noisy responses come from? (Lin & Kriegeskorte 2023, arXiv:2309.11028).

Several networks of one architecture are trained from starts of their own. From every hidden layer of each, `units` of
its units are drawn and their responses to the same `stimuli` taken, as they are and with normal noise of the layer's
mean variance over `snr`. A layer of one network is then identified by the other networks: the layer whose matrices,
averaged over them, correlate most with its own. Metrics, for the matrices rdm, rgtm and rgdm of
`aspects/representations/trsa.py`: the share identified of all layers and networks over `draws` of units and noise,
`clean_*` and `noisy_*`; `gain_*` = rgtm - rdm, with and without noise; `shuffled`, that of clean rgtm when each network
has the stimuli in an order of its own, `accuracy`, the mean test accuracy. Chance is 1 / layers.

Differs from the paper: perceptrons on digits instead of convolutional networks and brains, thresholds fixed in advance.
"""
import dataclasses

import jax
import numpy as np

from aspects import plugin
from aspects import sites as sites_lib
from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.nn import distances
from aspects.representations import trsa

FORMS = tuple(trsa.FORMS)


@dataclasses.dataclass(frozen=True)
class Trsa:
  """`networks` of the arm's architecture for each seed of the claim, started from numbers that the seed gives."""
  networks: int = 6
  site: str = 'resid_post.*'
  stimuli: int = 100
  units: int = 20
  snr: float = 1.0
  lower: float = 0.2
  upper: float = 0.8
  draws: int = 4

  def __post_init__(self):
    trsa.check_quantiles(self.lower, self.upper)
    if self.networks < 2 or self.stimuli < 3 or self.units < 1 or self.draws < 1 or not self.snr > 0:
      raise ValueError(f'networks {self.networks}, stimuli {self.stimuli}, units {self.units}, draws {self.draws} and '
                       f'snr {self.snr} must be at least 2, 3, 1, 1 and above 0')

  def rows(self, cell: Cell) -> Rows:
    starts = tuple(int(w) for s in cell.seeds for w in np.random.SeedSequence(s).generate_state(self.networks))
    arm = study.build({**plugin.freeze(cell.arm.config), 'arms': {}, 'claim': None, 'seeds': starts}).arms['main']
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    group = lambda values: np.asarray(values).reshape(len(cell.seeds), self.networks, *np.shape(values)[1:])
    bad = (group(done.state.bad) >= 0).any(1)
    acts = [group(x) for x in self.record(arm, done.state)]
    each = [self.found([x[k] for x in acts], seed) for k, seed in enumerate(cell.seeds)]
    metrics = {name: np.array([found[name].mean() for found in each]) for name in each[0]}
    for kind in ('clean', 'noisy'):
      metrics[f'gain_{kind}'] = metrics[f'{kind}_rgtm'] - metrics[f'{kind}_rdm']
    metrics['accuracy'] = group(done.measures['training'].test_accuracy.values[:, -1]).mean(1)
    depth = np.arange(1, len(acts) + 1)
    shown = ('noisy_rgtm', 'noisy_rdm')
    curves = {f'{name}@layer': (depth, np.stack([found[name] for found in each])) for name in shown}
    operations = training.operations(arm) * arm.steps * self.networks
    return Rows(metrics, bad, arm.parameters * self.networks, operations, arm.steps, curves)

  def record(self, arm, state) -> list[np.ndarray]:
    """Responses [S, N, D] of all networks at each site to the examples of the analysis, in forward order."""
    batch, variables = arm.probe.example(), study.variables(arm, state)
    one = jax.tree.map(lambda x: x[0], variables)
    names = sites_lib.select((self.site,), sites_lib.sites(arm.net, one, batch['input']))
    run = jax.jit(jax.vmap(lambda v, x: sites_lib.record_sites(arm.net, v, (x,), names, {}, {})[1], in_axes=(0, None)))
    batches = [arm.probe.batch(k) for k in range(len(arm.probe))]
    parts = [(run(variables, b['input']), b['weight'] > 0) for b in batches]
    return [np.concatenate([np.asarray(found[s], np.float64)[:, real] for found, real in parts], 1) for s in names]

  def found(self, acts, seed: int) -> dict[str, np.ndarray]:
    """Shares identified [L] of one group of networks, for acts L of [S, N, D], by condition and kind of matrix."""
    rng, count = np.random.default_rng(seed), acts[0].shape[1]
    out = {}
    for _ in range(self.draws):
      # a layer and network have other units and noise in every draw; the stimuli of a draw are the same for all
      chosen = rng.permutation(count)[:self.stimuli]
      clean = [self.responses(layer[:, chosen], rng) for layer in acts]
      noisy = [[x + rng.normal(size=x.shape) * np.sqrt(x.var(0).mean() / self.snr) for x in nets] for nets in clean]
      for kind, layers in (('clean', clean), ('noisy', noisy)):
        for form, share in identified(layers, self.lower, self.upper).items():
          out.setdefault(f'{kind}_{form}', []).append(share)
      orders = [rng.permutation(len(chosen)) for _ in range(self.networks)]
      shuffled = [[x[order] for x, order in zip(nets, orders)] for nets in clean]
      out.setdefault('shuffled', []).append(identified(shuffled, self.lower, self.upper)['rgtm'])
    return {name: np.mean(shares, 0) for name, shares in out.items()}

  def responses(self, layer: np.ndarray, rng) -> list[np.ndarray]:
    """`units` of each network's units, or all where there are fewer: [S, n, D] -> S of [n, units]."""
    return [x[:, rng.permutation(x.shape[1])[:self.units]] for x in layer]


def identified(layers, lower: float, upper: float) -> dict[str, np.ndarray]:
  """{kind of matrix: share of the networks in which each layer is identified by the others [L]}; L of S of [n, D]."""
  flat = [trsa.matrices(distances.dissimilarity(x, 'euclidean'), lower, upper) for nets in layers for x in nets]
  count, networks = len(layers), len(layers[0])
  out = {}
  for form in FORMS:
    r = trsa.correlations([m[form] for m in flat]).reshape(count, networks, count, networks)
    out[form] = leave_one_out(np.nan_to_num(r, nan=-1.))
  return out


def leave_one_out(similarity: np.ndarray) -> np.ndarray:
  """[L, S, L, S] -> [L]: how often the mean over the other networks is largest at the same layer.

  Of equal values the first counts."""
  layers, networks = similarity.shape[:2]
  others = (1 - np.eye(networks)) / (networks - 1)
  mean = np.einsum('asbt,st->asb', similarity, others)
  return (mean.argmax(2) == np.arange(layers)[:, None]).mean(1)

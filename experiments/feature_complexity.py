"""Feature complexity and when a feature is learned (Fel et al. 2024, arXiv:2407.06076).

A network is trained; the last hidden layer of its end is factorised into non-negative atoms. Metrics over the atoms:
`rho`, Spearman's correlation of an atom's complexity K on the trained network with the first of `checkpoints` whose
last hidden layer predicts it linearly with R^2 of at least `readable`; `p`, the share of permutations of the atoms that
correlate as much; `rho_shuffled`, rho with K shuffled; `rho_random`, rho of as many random unit directions of the same
layer; `advantage`, rho - rho_random; `rho_importance`, the correlation of K with the atom's importance to the outputs,
which a linear head gives in closed form; and of the network `accuracy` and `nll`, of the factorisation `explained`.

Probes are fitted on half of the examples of the analysis and scored on the others, see `features/complexity`. An atom
that no checkpoint predicts comes after all that are predicted. Without a linear head behind the last site, `head` None,
there is no `rho_importance`.

Differs from the paper: small residual perceptrons, one dictionary, atoms of the normed stream split by sign.
"""
import dataclasses

import jax
import numpy as np
from scipy import stats as scipy_stats

from aspects import mesh as mesh_lib
from aspects import sites as sites_lib
from aspects import study
from aspects import train
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.features import complexity
from aspects.nn import kernels


@dataclasses.dataclass(frozen=True)
class FeatureComplexity:
  """`sites` in forward order, the last of which is factorised; `head` is the path of the kernel that reads it."""
  sites: tuple[str, ...] = ('resid_post.*', 'pooled')
  head: str | None = 'head/logits_map/kernel'
  atoms: int = 40
  checkpoints: int = 12
  readable: float = 0.5
  iterations: int = 200
  permutations: int = 1000

  def __post_init__(self):
    if self.atoms < 4 or self.checkpoints < 2 or not 0 < self.readable < 1:
      raise ValueError(f'atoms {self.atoms}, checkpoints {self.checkpoints}, readable {self.readable}: a correlation '
                       'needs 4 atoms or more, a first time 2 checkpoints or more, and readable is an R^2 in (0, 1)')

  def rows(self, cell: Cell) -> Rows:
    arm, mesh = cell.arm, mesh_lib.make(cell.arm.config['mesh']['devices'] or None)
    state = train.init(arm.net, arm.rule, arm.seeds, arm.probe.example(), arm.config['analysis']['call'])
    times = schedule(arm.steps, self.checkpoints)
    run, names = self.recorder(arm, state)
    saved = {0: run(state)[names[-1]]}
    for step, (state, _) in enumerate(train.loop(train.compiled_step(arm.net, arm.rule), state, arm.streams, arm.steps,
                                                 mesh), 1):
      if step in times:
        saved[step] = run(state)[names[-1]]
      if cell.preempted():
        raise study.Preempted(f'{arm.name}: stopped at step {step}; the same command starts it again')
    acts, params = run(state), kernels.flatten(jax.device_get(state.params))
    bad = np.asarray(state.bad) >= 0
    found = []
    for s, seed in enumerate(arm.seeds):
      heads = None if self.head is None else np.asarray(params[self.head][s], np.float64)
      each = {n: np.asarray(x[s], np.float64) for n, x in acts.items()}
      early = [np.asarray(saved[t][s], np.float64) for t in times]
      found.append(self.atom_facts(each, early, heads, seed) if not bad[s] else None)
    metrics = {name: np.array([f[name] if f else np.nan for f in found])
               for name in next((f for f in found if f), {'rho': 0})}
    judge = train.compiled_evaluation(arm.net, arm.config['learning']['objective'], arm.config['analysis']['call'],
                                      own=arm.config['resplit'] and len(arm.seeds) > 1)
    held = train.evaluate(judge, study.variables(arm, state), arm.evaluation, mesh)
    metrics |= {name: held[name] for name in ('accuracy', 'nll')}
    return Rows(metrics, bad, arm.parameters, training.operations(arm) * arm.steps, arm.steps)

  def recorder(self, arm, state):
    """(state -> {site: [S, N, D]} on all examples of the analysis, tokens averaged; the sites in order)."""
    variables = study.variables(arm, state)
    one = jax.tree.map(lambda x: x[0], variables)
    specs = sites_lib.sites(arm.net, one, arm.probe.example()['input'])
    names = sites_lib.select(self.sites, specs)
    own = arm.config['resplit'] and len(arm.seeds) > 1
    def forward(v, x):
      acts = sites_lib.record_sites(arm.net, v, (x,), names, {}, {})[1]
      return {n: a.reshape(a.shape[0], -1, a.shape[-1]).mean(1) for n, a in acts.items()}
    compiled = jax.jit(jax.vmap(forward, in_axes=(0, 0 if own else None)))
    def run(state):
      parts = []
      for k in range(len(arm.probe)):
        batch = arm.probe.batch(k)
        real = np.asarray(batch['weight'][0] if own else batch['weight']) > 0
        parts.append({n: np.asarray(x)[:, real] for n, x in compiled(study.variables(arm, state),
                                                                     batch['input']).items()})
      return {n: np.concatenate([part[n] for part in parts], 1) for n in names}
    return run, names

  def atom_facts(self, acts, early, weights, seed: int) -> dict[str, float]:
    """The metrics of one network: acts {site: [N, D]} of its end, `early` the last site [N, D] at each checkpoint."""
    rng, last = np.random.default_rng(seed), list(acts.values())[-1]
    fit = np.arange(len(last)) % 2 == 0
    factors = complexity.factorised(last, fit, self.atoms, self.iterations)
    direction = rng.normal(size=(last.shape[1], self.atoms))
    both = np.concatenate([factors.codes, last @ (direction / np.linalg.norm(direction, axis=0))], 1)
    penalties = complexity.Complexity().penalties
    probe = lambda x: complexity.held_out(x, both, fit, penalties)[0]
    r2 = np.stack([probe(x) for x in acts.values()])
    k, random_k = np.split(complexity.complexity_of(r2), 2)
    first, random_first = np.split(first_reached(np.stack([probe(x) for x in early]), self.readable), 2)
    varying = np.isfinite(k)
    k, first = k[varying], first[varying]
    rho, chance = permuted(k, first, self.permutations, rng)
    out = {'rho': rho, 'p': (1 + (chance >= rho - 1e-12).sum()) / (1 + len(chance)), 'rho_shuffled': chance[0],
           'rho_random': correlation(random_k, random_first), 'explained': factors.explained,
           'spread': float(np.ptp(k)), 'reached': float((first < len(early)).mean())}
    out['advantage'] = out['rho'] - out['rho_random']
    if weights is not None:
      moved = complexity.importance(factors.codes, factors.atoms, weights)
      out['rho_importance'] = correlation(k, moved[varying])
    return out


def schedule(steps: int, count: int) -> tuple[int, ...]:
  """`count` or fewer steps from 0 to the last, evenly spaced in the logarithm."""
  spaced = np.geomspace(1, max(steps, 1), max(count - 1, 1)).round().astype(int)
  return tuple(sorted({0, *(min(int(t), steps) for t in spaced)}))


def first_reached(r2: np.ndarray, level: float) -> np.ndarray:
  """The first checkpoint at which R^2 [checkpoints, atoms] is `level` or more, their number where none is: [atoms]."""
  reached = np.nan_to_num(r2, nan=-np.inf) >= level
  return np.where(reached.any(0), reached.argmax(0), len(r2)).astype(float)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
  """Spearman's; 0 where one side does not vary, so that nothing is ordered by it."""
  if np.ptp(a) == 0 or np.ptp(b) == 0:
    return 0.0
  ranks = [scipy_stats.rankdata(v) for v in (a, b)]
  return float(np.corrcoef(*ranks)[0, 1])


def permuted(a: np.ndarray, b: np.ndarray, draws: int, rng) -> tuple[float, np.ndarray]:
  """(Spearman's correlation, that of `draws` permutations of `a`)."""
  return correlation(a, b), np.array([correlation(rng.permutation(a), b) for _ in range(draws)])

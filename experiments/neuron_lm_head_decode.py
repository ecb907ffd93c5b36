"""Clamping a neuron raises the token that the head decodes it to (Davies 2025, arXiv:2501.02688).

A language model is trained on bytes of the standard library's source. In each layer the `share` of neurons whose
decoded token (`aspects.locality.neuron_lm_head_decode`, the final norm folded in) has the largest probability are
clamped, one at a time: what the neuron reads, before the gate, is set to `strength` times its own standard deviation at
every position of held-out text. The effect of a neuron is the mean over positions of the change of log p of its token,
less that of `others` tokens that are as frequent in the text, in nats. Metrics:
  effect_first, effect_last   mean over the neurons of the first and of the last layer
  effect_gap                  the last less the first
  shuffled_last               the effect in the last layer with the decoded tokens dealt out among its neurons
  advantage_last              the last less the shuffled
  probability                 mean probability of the decoded tokens of the last layer

`direction` -1 clamps to minus the standard deviations. Frequencies are those of bytes in the measured text; `others`
are drawn among the `pool` bytes closest in frequency to the token.
Differs from the paper: it shows chosen neurons of Llama 3.1 8B; here is the mean over all that are most specialised, of
a byte-level model trained here, against tokens that are as frequent.
"""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from aspects import edits
from aspects import sites as sites_lib
from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.locality import neuron_lm_head_decode as decoder
from aspects.measure import measure_network


@dataclasses.dataclass(frozen=True)
class NeuronLmHeadDecode:
  """See the head of this file; `side_by_side` clamps are one program."""
  share: float = 0.05
  strength: float = 4.0
  others: int = 20
  pool: int = 40
  direction: int = 1
  side_by_side: int = 4

  def __post_init__(self):
    if not 0 < self.share <= 1 or not 0 < self.others <= self.pool or self.direction not in (-1, 1):
      raise ValueError(f'share {self.share} is above 0 and up to 1, others {self.others} of pool {self.pool}, and '
                       f'direction {self.direction} is 1 or -1')

  def rows(self, cell: Cell) -> Rows:
    arm = cell.arm
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    variables = study.variables(arm, done.state)
    found = [self.found(arm, jax.tree.map(lambda x: x[s], variables), seed) for s, seed in enumerate(cell.seeds)]
    metrics = {name: np.array([each[name] for each, _ in found]) for name in found[0][0]}
    metrics['nll'] = done.measures['training'][f'{arm.config["evaluation"]["split"]}_nll'].values[:, -1]
    layers = np.arange(1, len(found[0][1]) + 1)
    return Rows(metrics, np.asarray(done.state.bad) >= 0, arm.parameters, training.operations(arm) * arm.steps,
                arm.steps, {'effect@layer': (layers, np.stack([effect for _, effect in found]))})

  def found(self, arm, variables, seed: int) -> tuple[dict[str, float], np.ndarray]:
    """(metrics, effect of each layer [L]) of one network."""
    decoded = measure_network(arm.net, variables, arm.probe, decoder.NeuronLmHeadDecode(k=1))
    batch = arm.probe.batch(0)
    sites, rng = decoded.site.values.tolist(), np.random.default_rng(seed)
    spread = spreads(arm.net, variables, batch['input'], sites)
    probability, token = decoded['probability'].values, decoded['token'].values[..., 0].astype(int)
    count = max(1, round(self.share * probability.shape[1]))
    chosen = [np.argsort(-row, kind='stable')[:count] for row in probability]
    frequency = np.bincount(batch['input'].ravel(), minlength=arm.net.outputs)
    real, shuffled = [], []
    for k, site in enumerate(sites):
      values = self.direction * self.strength * spread[site][chosen[k]]
      change = clamped(arm.net, variables, batch['input'], site, chosen[k], values, self.side_by_side)
      own = token[k][chosen[k]]
      others = [alike(frequency, t, self.pool, self.others, rng) for t in own]
      gain = np.stack([change[:, t] - change[:, o].mean(1) for t, o in zip(own, others)], 1)     # [neuron, token]
      real.append(np.diag(gain).mean())
      shuffled.append(dealt(gain, rng))
    real = np.array(real)
    return {'effect_first': real[0], 'effect_last': real[-1], 'effect_gap': real[-1] - real[0],
            'shuffled_last': shuffled[-1], 'advantage_last': real[-1] - shuffled[-1],
            'probability': probability[-1][chosen[-1]].mean()}, real


def spreads(net, variables, inputs, sites) -> dict[str, np.ndarray]:
  """{site: standard deviation of each unit over all positions}."""
  acts = sites_lib.forward(net, variables, inputs, record=sites)[1]
  return {s: np.float64(acts[s]).reshape(-1, acts[s].shape[-1]).std(0) for s in sites}


def clamped(net, variables, inputs, site: str, units, values, side_by_side: int) -> np.ndarray:
  """The mean over positions of the change of log p [N, V] when units [N] of `site` are set to values [N], one each."""
  width = sites_lib.sites(net, variables, inputs)[site].shape[-1]
  @jax.jit
  def run(variables, units, values):
    before = jax.nn.log_softmax(sites_lib.record_sites(net, variables, (inputs,), (), {}, {})[0])
    def one(edit):
      after = jax.nn.log_softmax(sites_lib.record_sites(net, variables, (inputs,), (), edit, {})[0])
      return (after - before).mean((0, 1))
    swept = {site: edits.Replace(value=values, on=jax.nn.one_hot(units, width, dtype=bool))}
    return edits.sweep(one, swept, side_by_side)
  return np.float64(run(variables, jnp.asarray(units), jnp.asarray(values, jnp.float32)))


def alike(frequency: np.ndarray, token: int, pool: int, count: int, rng) -> np.ndarray:
  """`count` tokens other than `token`, drawn among the `pool` closest to it in log frequency."""
  distance = np.abs(np.log(frequency + 1.) - np.log(frequency[token] + 1.))
  distance[token] = np.inf
  return rng.choice(np.argsort(distance, kind='stable')[:pool], count, replace=False)


def dealt(gain: np.ndarray, rng, draws: int = 100) -> float:
  """The mean gain of neurons [N] whose tokens are dealt out anew: gain [N, N] of each neuron for each one's token."""
  n = len(gain)
  return float(np.mean([gain[np.arange(n), rng.permutation(n)].mean() for _ in range(draws)]))

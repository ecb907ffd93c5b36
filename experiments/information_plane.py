"""Compression in the information plane: how far layers fall from their peak (Shwartz-Ziv & Tishby, arXiv:1703.00810).

A network is trained on a part of all inputs and measured on all of them, at many steps. For every measure of the
config with a variable `ixt` [seed, step, site], over the last `layers` sites:
  <measure>_drop        mean over sites of (peak - last) / peak of I(X;T)
  <measure>_least_drop  the smallest of them
  <measure>_peak        the latest peak of the sites, as a share of the training
and <measure>_first_drop, that of the first site of all.
Beside them `accuracy` and `nll` on the train split at the end, as the arm's evaluation has them, and `snr_start` and
`snr_end`, the mean gradient over its deviation across `batches` batches before and after training, a geometric mean
over the kernels: above 1 is drift, below 1 diffusion.
"""
import dataclasses
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aspects import data
from aspects import plugin
from aspects import study
from aspects import train
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.depth.information_plane import gradient_snr
from aspects.learning.backprop import weighted_mean
from aspects.measure import network_inputs
from aspects.nn.information import compression_score

POINTS = 12                                          # of a curve for the page


@dataclasses.dataclass(frozen=True)
class InformationPlane:
  """`layers` sites at the end are judged; gradients are those of the first `batches` of the training."""
  layers: int = 2
  batches: int = 27

  def __post_init__(self):
    if self.layers < 1 or self.batches < 2:
      raise ValueError(f'layers {self.layers} must be 1 or more and batches {self.batches} 2 or more')

  def rows(self, cell: Cell) -> Rows:
    arm = on_all_inputs(cell.arm)
    call = arm.config['analysis']['call']
    start = jax.device_get(train.init(arm.net, arm.rule, arm.seeds, arm.probe.example(), call))
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, start=start, check=lambda state: None)
    curve, split = done.measures['training'], arm.config['evaluation']['split']
    metrics = {name: curve[f'{split}_{name}'].values[:, -1] for name in ('accuracy', 'nll')}
    metrics |= {f'snr_{when}': self.snr(arm, study.variables(arm, state), arm.rule)
                for when, state in (('start', start), ('end', done.state))}
    curves = {}
    for name in arm.program.measures:
      found = done.measures[name]['ixt'].transpose('seed', 'site', 'step')
      if found.sizes['site'] < self.layers:
        raise ValueError(f'layers is {self.layers}, and {name} has {found.sizes["site"]} sites; ask for fewer')
      metrics |= summary(name, found.values, found['step'].values / max(arm.steps, 1), self.layers)
      shown = np.unique(np.linspace(0, found.sizes['step'] - 1, min(POINTS, found.sizes['step'])).astype(int))
      curves[f'{name}_ixt@step'] = (found['step'].values[shown], found.values[:, -1, shown])
    bad = np.asarray(done.state.bad) >= 0
    return Rows(metrics, bad, arm.parameters, training.operations(arm) * arm.steps, arm.steps,
                dict(list(curves.items())[:2]))

  def snr(self, arm, variables, rule) -> np.ndarray:
    """The geometric mean over kernels of the gradient's signal-to-noise ratio [S]."""
    grads = gradients(arm, variables, self.batches)
    weights = traverse_util.flatten_dict(jax.device_get(variables['params']))
    def one(s):
      found = [gradient_snr(grads[path][s], weights[path][s]).snr for path in weights if path[-1] == 'kernel']
      return np.exp(np.log(np.maximum(found, np.finfo(np.float64).tiny)).mean())
    return np.array([one(s) for s in range(len(arm.seeds))])


def summary(name: str, ixt: np.ndarray, when: np.ndarray, layers: int) -> dict[str, np.ndarray]:
  """The metrics [S] of one measure, of I(X;T) [S, L, K] at the shares `when` [K] of the training."""
  score, peak = compression_score(ixt), when[ixt.argmax(-1)]
  last = score[:, -layers:]
  return {f'{name}_drop': last.mean(1), f'{name}_least_drop': last.min(1), f'{name}_peak': peak[:, -layers:].max(1),
          f'{name}_first_drop': score[:, 0]}


def on_all_inputs(arm: study.Arm) -> study.Arm:
  """`arm` measured on all examples of its task, those of every split together, whatever each seed is trained on."""
  parts = [arm.task.source(split) for split in arm.task.splits]
  rows = [part[np.arange(len(part))] for part in parts]
  every = data.ArraySource(**{name: np.concatenate([part[name] for part in rows]) for name in rows[0]})
  stream = arm.probe.streams[0] if isinstance(arm.probe, data.SeedStreams) else arm.probe
  return dataclasses.replace(arm, probe=dataclasses.replace(stream, source=every, batch_size=len(every)))


def gradients(arm: study.Arm, variables: Any, batches: int) -> dict[tuple[str, ...], np.ndarray]:
  """{parameter: [S, batches, ...]}: the gradient of the objective on each of the first training batches."""
  objective = plugin.build('objectives', arm.config['learning']['objective'])
  def loss(params, others, batch):
    inputs, kwargs = network_inputs(arm.net, batch)
    each, _ = objective(arm.net.apply({'params': params, **others}, *inputs, **kwargs), batch, jax.random.key(0))
    return weighted_mean(each, batch['weight'])
  def one(variables, stacked):
    others = {k: v for k, v in variables.items() if k != 'params'}
    return jax.lax.map(lambda batch: jax.grad(loss)(variables['params'], others, batch), stacked)
  stacked = [arm.streams.batch(k) for k in range(batches)]
  stacked = {name: jnp.stack([batch[name] for batch in stacked], 1) for name in stacked[0]}
  return traverse_util.flatten_dict(jax.device_get(jax.jit(jax.vmap(one))(variables, stacked)))

"""Ridge probes of all layers and strengths from one pass: `python -m benchmarks.probes [--layers 12 --width 384]`.

Ours with its null (random labels) and the choice of the penalty; its statistics alone; scikit-learn's Ridge, fitted
once a layer and strength on the same rows, without a null. The limit is the time of the products X'X as square
products. The activations are in memory; compilation is not counted. The last line compares the accuracies.
"""
import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import Ridge

from aspects import measure
from aspects import stats
from aspects.representations.probe import Probe
from benchmarks import timing


def activations(layers: int, rows: int, width: int, classes: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Layers of correlated units, with more of the label from layer to layer."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, classes, rows)
  def layer(share):
    mix = np.eye(width) + rng.normal(size=(width, width)) / (2 * width ** .5)
    x = rng.normal(size=(rows, width)) + share * rng.normal(size=(classes, width))[labels] / 4
    return (x @ mix).astype(np.float32)
  return {f'resid_post.{i}': layer(i / layers) for i in range(layers)}, labels.astype(np.int32)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name, default in dict(layers=12, rows=8000, width=384, classes=10, penalties=5, batch=1000, repeats=5).items():
    parser.add_argument(f'--{name}', type=int, default=default)
  a = parser.parse_args()
  acts, labels = activations(a.layers, a.rows, a.width, a.classes)
  penalties = tuple(10. ** np.linspace(-2, 6, a.penalties))
  probe = Probe(penalties=penalties, classes=a.classes)

  specs = {s: jax.ShapeDtypeStruct((a.batch, a.width), jnp.float32) for s in acts}
  statistics, wiring = measure.wire({'probe': probe}, specs)
  program = measure.Program(None, {'probe': probe}, specs, statistics, wiring, ())
  update = jax.jit(functools.partial(measure.update_all, statistics), donate_argnums=0)
  fields = {'weight': np.ones(a.rows, np.float32), 'index': np.arange(a.rows, dtype=np.int32), 'label': labels}
  parts = [slice(k, k + a.batch) for k in range(0, a.rows, a.batch)]
  batches = jax.device_put([({s: x[p] for s, x in acts.items()}, {f: v[p] for f, v in fields.items()}) for p in parts])
  def stream():
    states = program.init()
    for batch in batches:
      states = update(states, *batch)
    return states
  def ours():
    return program.compute(jax.device_get(stream()))['probe']

  held = np.asarray(stats.in_fold(jnp.zeros((a.rows, 1)), fields, 'mean', 'held')) > 0
  hot = np.eye(a.classes, dtype=np.float32)[labels]
  def loop():
    def accuracy(x, penalty):
      fit = Ridge(alpha=penalty).fit(x[~held], hot[~held])
      return (fit.predict(x[held]).argmax(1) == labels[held]).mean()
    return np.array([[accuracy(x, penalty) for x in acts.values()] for penalty in penalties])

  times = timing.rounds({'ours, with the null': ours, 'its statistics alone': stream, "scikit-learn's loop": loop,
                         'limit': (limit := timing.matmul(2. * a.layers * a.rows * a.width ** 2))}, a.repeats)
  times['limit'] *= limit.scale
  timing.table(f'Probes, {a.layers} layers x {a.penalties} penalties, {a.rows} rows of {a.width}', times,
               'ours, with the null', {'limit': "X'X of all layers as square products"})
  gap = abs(ours().accuracy - loop())
  print(f'largest difference of an accuracy: {gap.max().item() * held.sum():.0f} of {held.sum()} held-out rows')


if __name__ == '__main__':
  main()

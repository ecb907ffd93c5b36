"""CKA of all pairs of layers beside pytorch-cka 1.1.3 and torch-cka 0.21: `python -m benchmarks.cka [--only deep]`.

  exact      debiased linear CKA of all rows, streamed in batches, beside numpy in memory. The limit is the product of
             each pair once, all rows at hand
  minibatch  the mean of debiased HSIC over batches, which is what both peers compute: their statistic alone on the same
             batches of activations, without their model path. The limit is the Gram matrix of each layer and batch
  deep       errors on an MLP of 18 layers as torch initialises it, biases on, where float32 Gram matrices that are not
             centred go wrong
Largest errors are those against float64 in memory.
"""
import argparse

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats
from aspects.correlations.cka import Cka
from aspects.correlations.cka_minibatch import CkaMinibatch
from aspects.measure import measure_arrays
from aspects.statistics.minibatch_hsic import MinibatchHsic
from benchmarks import peers
from benchmarks import timing


# --- activations ----------------------------------------------------------------------------------------------------

def mild(layers, rows, width, seed=0):
  """A residual stream in float32 whose means are half its deviations."""
  rng = np.random.default_rng(seed)
  stream, acts = rng.normal(size=(rows, width)), {}
  for layer in range(layers):
    stream = stream + 0.5 * np.tanh(stream @ rng.normal(size=(width, width)) / width ** 0.5)
    acts[f'layer.{layer}'] = (stream + 0.5 * stream.std()).astype(np.float32)
  return acts


def deep(layers=18, width=1024, rows=256, seed=0):
  """A rectified MLP as torch initialises it: kernels and biases uniform within 1 / sqrt(width)."""
  rng = np.random.default_rng(seed)
  x, acts, bound = rng.normal(size=(rows, width)).astype(np.float32), {}, width ** -0.5
  for layer in range(layers):
    kernel, bias = (rng.uniform(-bound, bound, shape).astype(np.float32) for shape in ((width, width), width))
    x = np.maximum(x @ kernel + bias, 0)
    acts[f'layer.{layer}'] = x
  return acts


# --- the value, in memory -------------------------------------------------------------------------------------------

def hsic(acts, dtype):
  """Debiased HSIC of all pairs from centred rows, after Song et al. (2012)."""
  rows = [x.astype(dtype) - x.astype(dtype).mean(0) for x in acts]
  n = len(rows[0])
  norms = np.stack([(x ** 2).sum(1) for x in rows]).astype(np.float64)
  quartic, trace = norms @ norms.T, norms.sum(1)
  square = np.zeros_like(quartic)
  for i, x in enumerate(rows):
    for j, y in enumerate(rows[i:], i):
      square[i, j] = square[j, i] = ((x.T @ y).astype(np.float64) ** 2).sum()
  return (square - quartic + np.outer(trace, trace) / ((n - 1) * (n - 2)) - 2 * quartic / (n - 2)) / (n * (n - 3))


def in_memory(acts, dtype, batch):
  """CKA of HSIC averaged over batches, of all rows if there is one."""
  acts = list(acts.values())
  total = sum(hsic([x[k:k + batch] for x in acts], dtype) for k in range(0, len(acts[0]), batch))
  return total / np.sqrt(np.outer(np.diag(total), np.diag(total)))


def error(found, truth):
  gap = np.abs(np.asarray(found, np.float64) - truth)
  return 'NaN' if np.isnan(gap).any() else f'largest error {gap.max():.1e}'


# --- the peers' statistics ------------------------------------------------------------------------------------------

def pytorch_cka(batches):
  """What `cka.CKA` accumulates when a network is compared with itself, from activations; None without the package."""
  peer, torch = peers.peer('cka', 'pytorch-cka 1.1.3'), peers.peer('torch', 'torch')
  if peer is None or torch is None:
    return None
  batches = [[torch.from_numpy(x) for x in batch] for batch in batches]
  def run():
    with torch.inference_mode():
      total = sum(peer.hsic_cross(grams, grams) for grams in (
          torch.stack([torch.mm(x, x.T) for x in batch]) for batch in batches))
      own = torch.diagonal(total)
      return torch.clamp(total / torch.sqrt(torch.clamp(own[:, None] * own[None], min=0)), 0, 1).numpy()
  return run


def torch_cka(batches):
  """The loops of `torch_cka.CKA.compare`, from activations; None without the package."""
  peer, torch = peers.peer('torch_cka', 'torch-cka 0.21'), peers.peer('torch', 'torch')
  if peer is None or torch is None:
    return None
  batches = [[torch.from_numpy(x) for x in batch] for batch in batches]
  blank = peer.CKA.__new__(peer.CKA)
  blank.device = 'cpu'
  def run():
    sums = torch.zeros(len(batches[0]), len(batches[0]), 3)
    for batch in batches:
      for i, x in enumerate(batch):
        k = x @ x.t()
        k.fill_diagonal_(0.)
        sums[i, :, 0] += blank._HSIC(k, k) / len(batches)
        for j, y in enumerate(batch):
          l = y @ y.t()
          l.fill_diagonal_(0)
          sums[i, j, 1] += blank._HSIC(k, l) / len(batches)
          sums[i, j, 2] += blank._HSIC(l, l) / len(batches)
    return (sums[..., 1] / (sums[..., 0].sqrt() * sums[..., 2].sqrt())).numpy()
  return run


# --- workloads ------------------------------------------------------------------------------------------------------

def exact(a):
  acts = mild(a.layers, a.rows, a.width)
  ours = lambda: measure_arrays(Cka(('layer.*',)), acts, batch_size=a.batch).cka_linear_song.values
  joined = jnp.asarray(np.concatenate(list(acts.values()), 1))
  edges = range(0, a.layers * a.width, a.width)
  pairs = jax.jit(lambda x: [stats.product(x[:, i:i + a.width], x[:, j:j + a.width]) for i in edges for j in edges
                             if i <= j])
  limit = 'limit: each pair multiplied once'
  truth = in_memory(acts, 'f8', a.rows)
  candidates = {'ours, streamed in float32': ours, limit: lambda: pairs(joined),
                'numpy in memory, float32': lambda: in_memory(acts, 'f4', a.rows),
                'numpy in memory, float64': lambda: in_memory(acts, 'f8', a.rows)}
  notes = {name: error(candidates[name](), truth) for name in candidates if name != limit}
  peers.compare(f'Exact debiased CKA of {a.layers} layers, width {a.width}, {a.rows} rows in batches of {a.batch}',
                candidates, limit, a.repeats, notes)


def minibatch(a):
  acts = mild(a.layers, a.rows, a.width)
  batches = [[x[k:k + a.batch] for x in acts.values()] for k in range(0, a.rows, a.batch)]
  statistic = MinibatchHsic(tuple(acts), block=a.batch)
  update = jax.jit(statistic.update, donate_argnums=0)
  placed = [({s: jnp.asarray(x) for s, x in zip(acts, batch)}, {'weight': jnp.ones(a.batch)}) for batch in batches]
  specs = {s: jax.ShapeDtypeStruct((a.batch, a.width), jnp.float32) for s in acts}
  def ours():
    state = statistic.init(specs)
    for x, batch in placed:
      state = update(state, x, batch)
    total = statistic.finish(state).hsic
    return total / np.sqrt(np.outer(np.diag(total), np.diag(total)))
  grams = jax.jit(lambda x: [jax.lax.dot_general(v, v, (((1,), (1,)), ((), ())), precision='highest')
                             for v in x.values()])
  limit = 'limit: Gram matrices alone'
  candidates = {'ours, the statistic': ours, limit: lambda: [grams(x) for x, _ in placed],
                'ours, from numpy to the result': lambda: measure_arrays(CkaMinibatch(
                    ('layer.*',), block=a.batch), acts, batch_size=a.batch).cka_linear_song_minibatch.values}
  candidates |= {name: run for name, run in (('pytorch-cka, its statistic', pytorch_cka(batches)),
                                             ('torch-cka, its statistic', torch_cka(batches))) if run}
  truth = in_memory(acts, 'f8', a.batch)
  notes = {name: error(run(), truth) for name, run in candidates.items() if name != limit}
  peers.compare(f'Minibatch debiased CKA of {a.layers} layers, width {a.width}, {a.rows} rows in batches of {a.batch}',
                candidates, 'ours, the statistic', a.repeats, notes)


def default_mlp(a):
  acts = deep()
  truth = in_memory(acts, 'f8', 256)
  batches = [list(acts.values())]
  ours = {'ours, exact': lambda: measure_arrays(Cka(('layer.*',)), acts, batch_size=64).cka_linear_song.values,
          'ours, minibatch': lambda: measure_arrays(CkaMinibatch(('layer.*',)), acts).cka_linear_song_minibatch.values}
  theirs = {'pytorch-cka, its statistic': pytorch_cka(batches), 'torch-cka, its statistic': torch_cka(batches)}
  print('\n18-layer MLP of width 1024 as torch initialises it, 256 rows: float32 against float64')
  for name, run in {**ours, **theirs}.items():
    if run:
      print(f'{name:42s} {error(run(), truth)}')


WORKLOADS = {'exact': exact, 'minibatch': minibatch, 'deep': default_mlp}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, value in (('layers', 12), ('width', 384), ('rows', 10240), ('batch', 256), ('repeats', 5)):
    parser.add_argument(f'--{name}', type=int, default=value)
  parser.add_argument('--only', choices=list(WORKLOADS), help='one workload instead of all')
  a = parser.parse_args()
  for name in (a.only,) if a.only else WORKLOADS:
    WORKLOADS[name](a)


if __name__ == '__main__':
  main()

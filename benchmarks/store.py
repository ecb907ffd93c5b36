"""What storing costs: `python -m benchmarks.store [--small]`, files under --folder.

All resid_post and mlp_out of a language model in bfloat16, beside the forward pass alone; then 256 MB of a network that
does nothing, beside numpy's memory map of as many bytes, synchronised at the end; then random batches, as a trainer
reads them. Every call of the store compiles its program anew. Ratios are taken round by round, medians are shown.
"""
import argparse
import itertools
import pathlib
import shutil
import tempfile

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aspects import store
from aspects.data import ArraySource, Stream
from aspects.net import Net
from aspects.sites import forward, tag
from benchmarks import timing


class Spread(nn.Module):
  """A number of the input in each unit of a row: what is left is the writing."""
  width: int

  @nn.compact
  def __call__(self, x):
    return tag(self, 'rows', x * self.param('scale', nn.initializers.ones, (1, self.width)))


def stored(net, variables, stream, path, sites):
  shutil.rmtree(path, ignore_errors=True)
  return len(store.write(net, variables, stream, path, sites, progress=False))


def mapped(values, path):
  out = np.memmap(path, values.dtype, 'w+', shape=values.shape)
  out[:] = values
  out.flush()


def passes(net, variables, stream):
  for k in range(len(stream)):
    jax.block_until_ready(forward(net, variables, stream.batch(k)['input'])[0])


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--small', action='store_true')
  parser.add_argument('--folder', default=None)
  parser.add_argument('--repeats', type=int, default=5)
  a = parser.parse_args()
  depth, width, examples, length = (4, 256, 64, 128) if a.small else (12, 768, 64, 256)
  folder = pathlib.Path(tempfile.mkdtemp(dir=a.folder))
  net = Net(outputs=1024, depth=depth, width=width, embed=dict(name='tokens', vocab=1024, length=length),
            head=dict(name='unembed'), mixer=dict(name='attention', heads=width // 64, causal=True),
            channel=dict(name='mlp'))
  tokens = np.asarray(jax.random.randint(jax.random.key(1), (examples, length), 0, 1024))
  stream = Stream(ArraySource(input=tokens), 8)
  variables = jax.jit(net.init)(jax.random.key(0), tokens[:1])
  size = examples * length * 2 * depth * width * 2
  values = np.ones((2 ** 28 // 1536, 768), jnp.bfloat16)
  rows, spread = Stream(ArraySource(input=np.arange(len(values), dtype=np.float32)[:, None] % 251), 4096), Spread(768)
  parameters = spread.init(jax.random.key(0), np.ones((1, 1), np.float32))
  speed = lambda times, size: {name: f'{size / 1e6 / np.median(t):.0f} MB/s' for name, t in times.items()}
  try:
    times = timing.rounds({
        'forward and store': lambda: stored(net, variables, stream, folder / 'net', ('resid_post.*', 'mlp_out.*')),
        'forward alone': lambda: passes(net, variables, stream)}, a.repeats)
    timing.table(f'{size / 1e6:.0f} MB, {2 * depth} sites of width {width}', times, 'forward alone', speed(times, size))
    times = timing.rounds({'store': lambda: stored(spread, parameters, rows, folder / 'spread', 'rows'),
                           'numpy memory map': lambda: mapped(values, folder / 'map')}, a.repeats)
    timing.table(f'{values.nbytes / 1e6:.0f} MB of a network that does nothing', times, 'numpy memory map',
                 speed(times, values.nbytes))
    for path, arrays in (('net', '*'), ('spread', 'rows')):
      source = store.open(folder / path, arrays)
      batches = Stream(source, min(4096, len(source)), seed=0, repeat=True)
      steps = itertools.count()
      name = f'{batches.batch_size} random rows of {len(source.arrays)} arrays'
      read = timing.rounds({name: lambda batches=batches, steps=steps: batches.batch(next(steps))}, a.repeats)
      print(f'{name}: median {np.median(read[name]):.3f} s', flush=True)
  finally:
    shutil.rmtree(folder)


if __name__ == '__main__':
  main()

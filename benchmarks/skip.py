"""A sweep over all skipped layers: one compiled program beside one call a layer: `python -m benchmarks.skip`.

The limit is the forward passes alone, as many as the sweep has.
"""
import argparse

import jax

from aspects import edits
from aspects import sites
from aspects.net import Net
from benchmarks import timing


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name, value in (('depth', 12), ('width', 256), ('batch', 8), ('length', 64), ('repeats', 7)):
    parser.add_argument(f'--{name}', type=int, default=value)
  a = parser.parse_args()
  net = Net(outputs=256, embed=dict(name='tokens'), head=dict(name='unembed'), channel=dict(name='mlp'),
            mixer=dict(name='attention', heads=8, causal=True), depth=a.depth, width=a.width)
  tokens = jax.random.randint(jax.random.key(1), (a.batch, a.length), 0, 256)
  variables = jax.jit(net.init)(jax.random.key(0), tokens)
  layers = [(f'mixer_out.{i}', f'channel_out.{i}') for i in range(a.depth)]
  skipped = lambda changes: sites.forward(net, variables, tokens, edits=changes)[0]
  swept = {size: jax.jit(lambda changes, size=size: edits.sweep(skipped, changes, batch_size=size))
           for size in (1, a.depth)}
  every = edits.skip_each(layers)
  plain = jax.jit(net.apply)
  single = lambda i: skipped({name: edits.Skip() for name in layers[i]})
  times = timing.rounds({
      'one program, layer after layer': lambda: swept[1](every),
      'one program, all layers side by side': lambda: swept[a.depth](every),
      'one compiled call a layer': lambda: [single(i) for i in range(a.depth)],
      'limit: as many plain forward passes': lambda: [plain(variables, tokens) for _ in range(a.depth)]}, a.repeats)
  timing.table(f'Skipping each of {a.depth} layers, width {a.width}, batch {a.batch} x {a.length}', times,
               'limit: as many plain forward passes')


if __name__ == '__main__':
  main()

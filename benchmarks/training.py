"""Training steps a second, one seed and sixteen: `python -m benchmarks.training [--kind residual]`.

Sixteen seeds are one program: their price is a question of how much of one seed's step is work. The limit is the
time of the operations of a step (six a parameter and row) in square products.
"""
import argparse

import jax

from aspects import plugin
from aspects import train
from aspects.net import Net
from aspects.nn.perceptron import Perceptron
from benchmarks import timing


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--kind', choices=('perceptron', 'residual'), default='perceptron')
  for name, value in (('depth', 1), ('width', 64), ('batch', 32), ('steps', 50), ('repeats', 7)):
    parser.add_argument(f'--{name}', type=int, default=value)
  a = parser.parse_args()
  net = Perceptron(outputs=10, widths=(a.width,) * a.depth) if a.kind == 'perceptron' else Net(
      outputs=10, embed=dict(name='vector'), head=dict(name='classify'), channel=dict(name='mlp', act='relu'),
      depth=a.depth, width=a.width, stack=dict(name='plain', scan=True))
  rule = plugin.build('learning', dict(name='backprop'), steps=10 ** 6)
  one = {'input': jax.random.normal(jax.random.key(0), (a.batch, 8, 8, 1)), 'index': jax.numpy.arange(a.batch),
         'label': jax.random.randint(jax.random.key(1), (a.batch,), 0, 10), 'weight': jax.numpy.ones(a.batch)}
  candidates, advance = {}, train.compiled_step(net, rule)
  for seeds in (1, 16):
    state = [train.init(net, rule, tuple(range(seeds)), one)]
    batch = jax.tree.map(lambda x: jax.numpy.stack([x] * seeds), one)
    def run(state=state, batch=batch):
      for _ in range(a.steps):
        state[0], info = advance(state[0], batch)
      return info
    candidates[f'{seeds} seed{"s" * (seeds > 1)}'] = run
  parameters = sum(x.size for x in jax.tree.leaves(train.init(net, rule, (0,), one).params))
  limit = timing.matmul(6 * parameters * a.batch * a.steps, size=256)
  times = timing.rounds({**candidates, 'limit: operations of one seed': limit}, a.repeats)
  times['limit: operations of one seed'] *= limit.scale
  speed = {name: f'{a.steps / float(sorted(t)[len(t) // 2]):.0f} steps/s' for name, t in times.items()}
  title = f'{a.steps} steps of a {a.kind} network, depth {a.depth}, width {a.width}, batch {a.batch}'
  timing.table(title, times, '1 seed', speed)


if __name__ == '__main__':
  main()

"""What recording costs, for a network of GPT-2-small's shape: `python -m benchmarks.recording [--small]`.

Plain jitted forward; the same with all resid_post returned; the same with the full covariance of every resid_post
accumulated. The limit is the time of the same number of operations in square products.
"""
import argparse

import jax
import jax.numpy as jnp
import numpy as np

from aspects import sites
from aspects.net import Net
from aspects.statistics.covariance import Covariance
from benchmarks import timing


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--depth', type=int, default=12)
  parser.add_argument('--width', type=int, default=768)
  parser.add_argument('--vocab', type=int, default=50257)
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--length', type=int, default=128)
  parser.add_argument('--repeats', type=int, default=9)
  parser.add_argument('--scan', action='store_true')
  a = parser.parse_args()
  net = Net(outputs=a.vocab, embed=dict(name='tokens', vocab=a.vocab, length=1024), head=dict(name='unembed'),
            mixer=dict(name='attention', heads=a.width // 64, causal=True), channel=dict(name='mlp'),
            depth=a.depth, width=a.width, stack=dict(name='plain', scan=a.scan))
  tokens = jax.random.randint(jax.random.key(1), (a.batch, a.length), 0, a.vocab)
  variables = jax.jit(net.init)(jax.random.key(0), tokens)
  batch = {'weight': np.ones(a.batch, np.float32), 'index': np.arange(a.batch, dtype=np.int32)}
  covariance = Covariance(sites.select(('resid_post.*',), sites.sites(net, variables, tokens)))

  plain = jax.jit(net.apply)
  def record(variables, tokens):
    return sites.forward(net, variables, tokens, record=('resid_post.*',))
  def accumulate(state, variables, tokens, batch):
    out, acts = sites.forward(net, variables, tokens, record=('resid_post.*',))
    return out, covariance.update(state, acts, batch)
  record, accumulate = jax.jit(record), jax.jit(accumulate, donate_argnums=0)
  specs = {n: jax.ShapeDtypeStruct((a.batch, a.length, a.width), jnp.float32) for n in covariance.sites}
  state = jax.tree.map(jnp.copy, covariance.init(specs))
  def streamed():
    nonlocal state
    out, state = accumulate(state, variables, tokens, batch)
    return out, state
  rows = a.batch * a.length
  flops = rows * (a.depth * (24 * a.width ** 2 + 4 * a.length * a.width) + 2 * a.width * a.vocab)
  limit = timing.matmul(flops)
  times = timing.rounds({'plain forward': lambda: plain(variables, tokens),
                         'all resid_post returned': lambda: record(variables, tokens),
                         'all covariances accumulated': streamed, 'limit: the same operations as products': limit},
                        a.repeats)
  times['limit: the same operations as products'] *= limit.scale
  timing.table(f'Recording, depth {a.depth}, width {a.width}, batch {a.batch} x {a.length}', times, 'plain forward',
               {'all covariances accumulated': f'{a.depth * rows * 2 * a.width ** 2 / flops:.1%} more operations'})


if __name__ == '__main__':
  main()

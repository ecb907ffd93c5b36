"""A small store of a small network, also as a process that can be killed: `python -m tests.storing PATH SECONDS`."""
import functools
import sys
import time

import jax
import numpy as np

from aspects import ArraySource, Net, Stream, store

EXAMPLES, LENGTH = 23, 6
SITES = ('resid_post.*', 'mlp_out.1')


@functools.cache
def network(heads=2):
  embed, head = dict(name='tokens', vocab=10, length=LENGTH), dict(name='unembed')
  return Net(outputs=10, depth=2, width=8, embed=embed, head=head,
             mixer=dict(name='attention', heads=heads, causal=True), channel=dict(name='mlp'))


@functools.cache
def variables(seed=0, heads=2):
  return jax.jit(network(heads).init)(jax.random.key(seed), fields()['input'][:1])


def fields(other=False):
  random = np.random.default_rng(0)
  text = random.integers(0, 10, (EXAMPLES, LENGTH)).astype(np.int32)
  mask = (np.arange(LENGTH) < random.integers(2, LENGTH + 1, EXAMPLES)[:, None]).astype(np.float32)
  text[-1, 0] = (text[-1, 0] + other) % 10
  return {'input': text, 'mask': mask}


class Watched(Stream):
  """A stream that says which batches are asked for."""

  def batch(self, step):
    self.watch(step)
    return super().batch(step)


def write(path, sites=SITES, watch=lambda step: None, seed=0, heads=2, other=False, batch=4, repeat=False, shard=1000,
          **more):
  stream = Watched(ArraySource(**fields(other)), batch, repeat=repeat)
  object.__setattr__(stream, 'watch', watch)
  return store.write(network(heads), variables(seed, heads), stream, path, sites, shard=shard, progress=False, **more)


if __name__ == '__main__':
  jax.config.update('jax_default_matmul_precision', 'highest')
  write(sys.argv[1], watch=lambda step: time.sleep(float(sys.argv[2])))

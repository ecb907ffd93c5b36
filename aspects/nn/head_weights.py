"""The weights of attention heads as the residual stream meets them.

As in A Mathematical Framework for Transformer Circuits (Elhage et al. 2021).

Rows stand on the left: a token x [D] is read by x W. A sublayer reads N(x) = gain * (x - mean(x)) / sd(x) + bias. Its
gain is a factor of the rows of what reads, and taking off the mean is the projection P = I - 1 1' / D; both are folded
in. P is also applied to what is written, since no later layer can see the mean. Division by sd(x) changes the length of
what is read and no direction; biases add the same to all tokens. Both are left out.
"""
from typing import Any, Mapping, NamedTuple

import jax
import numpy as np

from aspects import net as net_lib

READ = ('pre', 'parallel')                           # placements in which a sublayer reads a norm of the stream
CENTRED = {'layer': True, 'rms': False}              # whether a norm takes off the mean


class Heads(NamedTuple):
  """The H heads of a layer: `query`, `key` and `value` [H, D, d] read, `out` [H, d, D] writes; float64.

  Heads that share a key and a value (grouped queries) have it each."""
  query: np.ndarray
  key: np.ndarray
  value: np.ndarray
  out: np.ndarray

  @property
  def ov(self) -> np.ndarray:
    """[H, D, D]: what a token that is read adds to the one that reads it, x OV."""
    return self.value @ self.out

  @property
  def qk(self) -> np.ndarray:
    """[H, D, D]: the score of a query x and a key y is x QK y'."""
    return self.query @ self.key.transpose(0, 2, 1)


def layers(net, params: Mapping[str, Any]) -> list[Heads]:
  """The heads of every layer of a `Net`, in forward order; gains folded, means taken off.

  With rotary positions `qk` is that of two tokens at one place.

  Raises:
    ValueError: the network has no attention, or its norms do not stand where they can be folded."""
  centred = _check(net)
  return [_heads(block, centred, _offset(net), name) for name, block in blocks(net, params)]


def unembedding(net, params: Mapping[str, Any]) -> np.ndarray:
  """[D, V]: what a direction of the stream adds to the logits, the gain of the last norm folded, its mean taken off.

  Raises:
    ValueError: the head is not an unembedding of the stream itself."""
  centred = _check(net)
  if net.head['name'] != 'unembed' or any(k in net.head and net.head[k] is not None for k in ('hidden', 'size')):
    raise ValueError(f'the head {dict(net.head)} does not map the stream to logits by one matrix; that of unembed does')
  params = _float64(params)
  tied = 'tied' in net.head and net.head['tied']
  matrix = params['embedder']['token']['embedding'].T if tied else params['head']['logits_map']['kernel']
  matrix = _gain(params['norm'], _offset(net))[:, None] * matrix
  return off_mean(matrix, 0) if centred else matrix


def blocks(net, params: Mapping[str, Any]) -> list[tuple[str, dict]]:
  """(name, parameters in float64) of every block, scanned stacks one by one."""
  params = _float64(params)
  found = []
  for stage in sorted((k for k in params if k.startswith('stage_')), key=lambda k: int(k.split('_')[1])):
    inside = params[stage]
    if 'block' in inside and net.stack['name'] == 'plain':
      inside = net_lib.to_unrolled({stage: inside})[stage]
    if 'block_0' not in inside:
      raise ValueError(f"the weights of heads are read from the stack 'plain'; {stage} of {net.stack['name']!r} has "
                       f'{sorted(inside)}')
    found += [(f'{stage}/block_{i}', inside[f'block_{i}']) for i in range(len(inside))]
  return found


def off_mean(x: np.ndarray, axis: int) -> np.ndarray:
  """`x` without its mean over the units of the stream, which are along `axis`."""
  return x - x.mean(axis, keepdims=True)


def _check(net) -> bool:
  """Whether the norm takes off the mean.

  Raises ValueError for a norm or a placement that cannot be folded."""
  if net.placement['name'] not in READ:
    raise ValueError(f"placement {net.placement['name']!r}: a norm is folded into what reads it, which takes a "
                     f'placement of {", ".join(READ)}')
  if net.norm['name'] not in CENTRED:
    raise ValueError(f"norm {net.norm['name']!r} is not one of {', '.join(CENTRED)}, whose gains can be folded")
  return CENTRED[net.norm['name']]


def _offset(net) -> float:
  return net.norm['offset'] if 'offset' in net.norm else 0.0


def _gain(norm: Mapping, offset: float) -> np.ndarray:
  return offset + norm['affine']['scale']


def _heads(block: Mapping, centred: bool, offset: float, name: str) -> Heads:
  if 'heads' not in block.get('mixer', {}):
    raise ValueError(f'{name} has no attention; its mixer has {sorted(block.get("mixer", {}))}')
  weights, gain = block['mixer']['heads'], _gain(block['residual']['mixer_norm'], offset)
  count = weights['query']['kernel'].shape[1]
  def read(which):
    kernel = gain[:, None, None] * weights[which]['kernel']                      # [D, heads or groups of them, d]
    kernel = np.repeat(kernel, count // kernel.shape[1], 1).transpose(1, 0, 2)
    return off_mean(kernel, 1) if centred else kernel
  out = weights['out']['kernel']
  return Heads(*(read(w) for w in ('query', 'key', 'value')), off_mean(out, 2) if centred else out)


def _float64(params):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), dict(params))

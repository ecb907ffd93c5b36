"""The kernels of a network, by path and in the order in which they are used."""
from flax import linen as nn
from flax import traverse_util
import jax


def flatten(params) -> dict:
  """{'layer_0/kernel': array} of a tree of parameters."""
  return traverse_util.flatten_dict(dict(params), sep='/')


def unflatten(flat) -> dict:
  return traverse_util.unflatten_dict(flat, sep='/')


def in_order(net: nn.Module, params, inputs) -> tuple[str, ...]:
  """The paths of all leaves called `kernel`, in the order in which `net` meets them on `inputs` [N, ...].

  Raises:
    ValueError: a kernel is never used, or there is none.
  """
  kernels = [path for path in flatten(params) if path.split('/')[-1] == 'kernel']
  met = {}

  def note(call, args, kwargs, context):
    path = '/'.join((*context.module.path, 'kernel'))
    if path in kernels:
      met[path] = None
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.eval_shape(lambda p, x: net.apply({'params': p}, x), params, inputs)
  unused = [path for path in kernels if path not in met]
  if unused or not met:
    raise ValueError(f'the network uses {list(met)} of the kernels {kernels}; it must use one or more, and all')
  return tuple(met)

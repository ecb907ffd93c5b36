"""Edits: what is done to a tensor at a site, as data.

An edit is a pytree from tensor to tensor. Its arrays are traced, so another value never recompiles, a leading axis over
them is a sweep (`vmap`, `lax.map`), and switched off (`on=False`) it is bitwise the identity.
"""
import collections
from typing import Any, Callable, ClassVar, Iterable, Mapping

from flax import struct
import jax
import jax.numpy as jnp

from aspects import sites

Array = jax.Array


class Edit(struct.PyTreeNode):
  """Base of all edits: `change` where `on`, the input bit for bit elsewhere.

  `on` is a boolean that broadcasts to the tensor as in numpy: a scalar, units `[D]`, positions `[T, 1]`, examples
  `[B, 1, 1]`. Switched off it is the identity for gradients too, whatever its arrays hold. `examples` are fields of
  instances for tests.
  """
  examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
  on: Any = struct.field(default=True, kw_only=True)

  def change(self, x: Array) -> Array:
    raise TypeError(f'{type(self).__name__} does not say what it changes; define change(self, x)')

  def __call__(self, x: Array) -> Array:
    # The inner `where` keeps a NaN of an edit that is off out of the gradient, which `0 * NaN` would let through.
    changed = self.change(jnp.where(jnp.any(jnp.asarray(self.on)), x, jnp.zeros_like(x)))
    return jnp.where(jnp.broadcast_to(self.on, x.shape), changed.astype(x.dtype), x)


class Skip(Edit):
  """Sets the tensor to zero; at `mixer_out` and `channel_out` this skips a layer."""

  def change(self, x):
    return jnp.zeros_like(x)


class Scale(Edit):
  """Multiplies the tensor by `factor`, which broadcasts to it."""
  examples = ({'factor': 2.0},)
  factor: Any = 1.0

  def change(self, x):
    return x * jnp.broadcast_to(self.factor, x.shape).astype(x.dtype)


class Add(Edit):
  """Adds `delta`, which broadcasts to the tensor: steering, and the variable of gradients at a site."""
  examples = ({'delta': 3.0},)
  delta: Any = 0.0

  def change(self, x):
    return x + jnp.broadcast_to(self.delta, x.shape).astype(x.dtype)


class Replace(Edit):
  """Puts `value` in place of the tensor: patching, clamping and ablation, on part of it through `on`."""
  examples = ({'value': 5.0},)
  value: Any = 0.0

  def change(self, x):
    return jnp.broadcast_to(self.value, x.shape)


class Noise(Edit):
  """Adds Gaussian noise of standard deviation `scale`, in units of the tensor, drawn from `key`.

  `key` is a key or an integer seed. One key draws one noise: sites that share it get the same, so give each its own.
  """
  examples = ({'key': 0},)
  key: Any = None
  scale: Any = 1.0

  def change(self, x):
    if self.key is None:
      raise ValueError('Noise needs a key to draw from, for example Noise(key=jax.random.key(0))')
    key = jax.random.key(self.key) if jnp.issubdtype(jnp.result_type(self.key), jnp.integer) else self.key
    noise = jax.random.normal(key, x.shape, jnp.float32)
    return x + (noise * jnp.broadcast_to(self.scale, x.shape)).astype(x.dtype)


class Project(Edit):
  """Removes the component along `direction` [D], of any length, from the last axis; along zero there is none."""
  examples = ({'direction': (1.0, 0.0, -2.0, 0.5)},)
  direction: Any = None

  def change(self, x):
    direction = jnp.asarray(self.direction, jnp.float32)
    length = jnp.sum(direction ** 2)
    unit = (direction * jax.lax.rsqrt(jnp.where(length > 0, length, 1.0))).astype(x.dtype)
    return x - (x @ unit)[..., None] * jnp.broadcast_to(unit, x.shape)


class Chain(struct.PyTreeNode):
  """Several edits of one site, applied in order."""
  links: tuple

  def __call__(self, x: Array) -> Array:
    for edit in self.links:
      x = edit(x)
    return x


def sweep(function: Callable[[Mapping[str, Edit]], Any], edits: Mapping[str, Edit], batch_size: int = 1):
  """`function(edits)` for every entry of the leading axis of the edits' arrays, as one compiled program.

  `batch_size` entries run side by side (vmap); memory grows with it, not with the length of the sweep.
  """
  return jax.lax.map(function, collections.OrderedDict(edits), batch_size=batch_size)   # a dict would be sorted by name


def skip_each(groups: Iterable[Iterable[str]]) -> dict[str, Edit]:
  """Edits for a sweep in which entry i skips the sites of group i: `{site: Skip(on=[len(groups)])}`."""
  groups = [tuple(g) for g in groups]
  names = [n for g in groups for n in g]
  return {n: Skip(on=jnp.asarray([n in g for g in groups])) for n in names}


def site_gradients(loss: Callable[[Any], Array], net, variables, *inputs, record: Iterable[str], **kwargs):
  """d loss(outputs) / d site for the sites that match `record`: {site: gradient of the site's shape}.

  It is the derivative with respect to a zero added at the site, so the value reaches all that lies behind it.
  """
  known = sites.survey(net, variables, *inputs, modules=False, **kwargs)
  names = sites.select(record, known.specs)
  def objective(deltas):
    return loss(sites.forward(net, variables, *inputs, edits={n: Add(delta=d) for n, d in deltas.items()}, **kwargs)[0])
  gradients = jax.grad(objective)({n: jnp.zeros(known.specs[n].shape, known.specs[n].dtype) for n in names})
  return {n: gradients[n] for n in names}

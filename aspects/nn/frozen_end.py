"""The end of a network as a linear map: its final norm at a scale that is given, and its head.

A norm is a linear map divided by a scale, which depends on the stream; at a stream of zeros the scale does not change
with the stream, so that the derivative there is the linear map itself. This is read off the network by running it from
its last stream on: no weights are looked up, and the head may be tied, pool its tokens or add a bias. A soft cap of
the logits is the identity at 0, so that what is linear is the logits before it, where neither norm nor head has a bias.
"""
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp

from aspects import edits

Array = jax.Array


class Linear(NamedTuple):
  """A map of tokens at zero: its value there, its derivative along the actual tokens, and that of any cotangent."""
  constant: Any
  along: Any
  pull: Any


def at_zero(function, x) -> Linear:
  """`function` of a pytree of arrays like `x`, linearised at zeros."""
  zeros = jax.tree.map(jnp.zeros_like, x)
  constant, along = jax.jvp(function, (zeros,), (x,))
  return Linear(constant, along, lambda cotangent: jax.vjp(function, zeros)[1](cotangent)[0])


def replaced(rerun, names, record):
  """The function {site: value} -> {site: value} that runs the network with these in place and records others."""
  return lambda values: dict(rerun({n: edits.Replace(value=values[n]) for n in names}, tuple(record))[1])


def scale(value: Array, linear: Linear) -> Array:
  """By what a token's norm multiplies the linear map, to give `value` [..., D] less its constant: [...]; 0 / 0 is 1."""
  change = (linear.along * (value - linear.constant)).sum(-1)
  length = (linear.along ** 2).sum(-1)
  return jnp.where(length > 0, change / jnp.where(length > 0, length, 1), 1)


def logits_at_zero(rerun, stream: Array, final: str) -> tuple[Linear, Linear]:
  """(final norm, logits) of a stream [B, T, D] put at `final`, linearised at zeros."""
  run = replaced(rerun, (final,), ('final_norm', 'logits'))
  both = at_zero(lambda x: run({final: x}), stream)
  zeros = lambda name: jax.tree.map(jnp.zeros_like, {n: v for n, v in both.constant.items() if n != name})
  part = lambda name: Linear(both.constant[name], both.along[name],
                             lambda c: both.pull({name: c, **zeros(name)}))
  return part('final_norm'), part('logits')

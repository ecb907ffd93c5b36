"""The Lottery Ticket Hypothesis: backpropagation under a mask, f(x; m * theta) (Frankle & Carbin 2018, arXiv:1803.03635).

The mask multiplies weights and gradients in every step, before gradients are clipped or enter the optimiser's moments;
masked weights stay exactly zero. It is part of the rule's state and open at first; `under` sets another.
"""
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aspects.learning.backprop import Backprop, BackpropState


class Mask(NamedTuple):
  """Bool arrays like the parameters, and the norm of the last masked gradient."""
  open: Any
  norm: Any


def through(mask, tree):
  """`tree` with zeros where `mask` is False."""
  return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros_like(x)), mask, tree)


def _link() -> optax.GradientTransformation:
  def init(params):
    return Mask(jax.tree.map(lambda w: jnp.ones(w.shape, bool), params), jnp.float32(0))
  def update(grads, state, params=None):
    del params
    grads = through(state.open, grads)
    return grads, Mask(state.open, optax.tree.norm(grads))
  return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True)
class Masked(Backprop):
  """Backpropagation with all its fields, for the weights that a mask leaves open."""

  def transformation(self) -> optax.GradientTransformation:
    return optax.chain(_link(), super().transformation())

  def step(self, net, params, state: BackpropState, batch, key):
    """(params, state, info) as of backpropagation; the gradient's norm is that of the masked gradient."""
    mask = state.optimizer[0].open
    params, state, info = super().step(net, through(mask, params), state, batch, key)
    # An optimiser may move a weight whose gradient is zero, for instance by noise.
    return through(mask, params), state, {**info, 'gradient_norm': state.optimizer[0].norm}

  def under(self, mask, params, state: BackpropState) -> tuple[Any, BackpropState]:
    """(params, state) under another mask, a tree of bool like the parameters."""
    link, *rest = state.optimizer
    return through(mask, params), state._replace(optimizer=(link._replace(open=mask), *rest))

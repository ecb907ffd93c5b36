"""Tokens of an image as the square grid that they came from."""
import math

import jax
import jax.numpy as jnp

Array = jax.Array


def to_grid(x: Array, mask: Array | None = None) -> Array:
  """Tokens [B, T, D] in reading order as [B, S, S, D] with S^2 = T; those whose `mask` [B, T] is 0 become zeros.

  Raises:
    ValueError: T is not a square.
  """
  b, t, d = x.shape
  side = math.isqrt(t)
  if side * side != t:
    raise ValueError(f'{t} tokens are not a square grid; this mixer needs one, without a class token')
  if mask is not None:
    x = jnp.where(jnp.broadcast_to(mask[..., None] > 0, x.shape), x, 0)
  return x.reshape(b, side, side, d)


def check_window(size: int) -> None:
  if size < 1 or size % 2 == 0:
    raise ValueError(f'size {size} of a window is not odd; without a middle it would move the image: '
                     f'nearest {max(size - 1, 1)} or {max(size, 0) + 1}')

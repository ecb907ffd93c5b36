"""One vector an example from its tokens."""
import jax
import jax.numpy as jnp

Array = jax.Array
POOLS = ('mean', 'first', 'last', 'first_and_mean', 'first_two')


def pool(x: Array, mask: Array | None, how: str, prefix: int = 0) -> Array:
  """[B, T, D] -> [B, D]: the mean over real tokens (behind the first `prefix`), the first, or the last real token;
  `first_and_mean` is both side by side, [B, 2 D]; `first_two` the first two, [B, 2, D].

  Raises:
    ValueError: another name."""
  if how not in POOLS:
    raise ValueError(f'pool {how!r} is not one of {", ".join(POOLS)}')
  if how == 'first':
    return x[:, 0]
  if how == 'first_two':
    return x[:, :2]
  real = jnp.ones(x.shape[:2], bool) if mask is None else mask > 0
  if how == 'last':
    return x[jnp.arange(x.shape[0]), jnp.where(real, jnp.arange(x.shape[1])[None], 0).max(1)]
  real &= (jnp.arange(x.shape[1]) >= prefix)[None]
  exact = jnp.promote_types(x.dtype, jnp.float32)
  total = jnp.where(jnp.broadcast_to(real[..., None], x.shape), x, 0).sum(1, dtype=exact)
  mean = (total / jnp.maximum(real.sum(1, keepdims=True), 1)).astype(x.dtype)
  return mean if how == 'mean' else jnp.concatenate([x[:, 0], mean], -1)

"""Tables of positions for grids of another size: cubic convolution (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def cubic(old: int, new: int, a: float = -0.75) -> np.ndarray:
  """float64 [new, old]: samples at the centres of `new` equal parts of `old`; the edge repeats. a = -3/4 is torch's."""
  at = (np.arange(new) + 0.5) * old / new - 0.5
  left, out = np.floor(at).astype(int), np.zeros((new, old))
  for tap in range(-1, 3):
    d = np.abs(at - (left + tap))
    np.add.at(out, (np.arange(new), np.clip(left + tap, 0, old - 1)), _kernel(d, a))
  return out


def smooth(old: int, new: int, a: float = -0.5) -> np.ndarray:
  """float64 [new, old]: the same, antialiased: a kernel as wide as a new part, nothing beyond the edge (as Pillow)."""
  wide = max(old / new, 1)
  d = np.abs((np.arange(old) + 0.5)[None] - (np.arange(new) + 0.5)[:, None] * old / new) / wide
  out = _kernel(d, a)
  return out / out.sum(1, keepdims=True)


def _kernel(d: np.ndarray, a: float) -> np.ndarray:
  return np.where(d <= 1, (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1,
                  np.where(d < 2, a * d ** 3 - 5 * a * d ** 2 + 8 * a * d - 4 * a, 0))


def resized(table: Array, grid: tuple[int, int], new: tuple[int, int], antialias: bool = False) -> Array:
  """A table [rows * columns, D] of `grid` as one of `new`, in float32 or better."""
  if tuple(grid) == tuple(new):
    return table
  exact = jnp.promote_types(table.dtype, jnp.float32)
  rows, columns = (jnp.asarray((smooth if antialias else cubic)(o, n), exact) for o, n in zip(grid, new))
  cells = table.reshape(*grid, table.shape[-1]).astype(exact)
  out = jnp.einsum('ra,cb,abd->rcd', rows, columns, cells, precision=jax.lax.Precision.HIGHEST)
  return out.reshape(-1, table.shape[-1]).astype(table.dtype)

"""Key maps between published checkpoints and the skeleton: which tensor is which parameter, and in which layout.

A `Form` says how one tensor of theirs becomes one or several parameters of ours, and back; forms are views, so that
nothing is copied until a parameter is filled. Linear maps of torch are [out, in], ours [in, out].
"""
from typing import Any, Callable, Iterable, NamedTuple, Sequence

import numpy as np

Arrays = tuple[np.ndarray, ...]


class Form(NamedTuple):
  """`read(x) -> (parameter, ...)` and its inverse `write(*parameters) -> x`."""
  read: Callable[[np.ndarray], Arrays]
  write: Callable[..., np.ndarray]


class Key(NamedTuple):
  """A tensor `theirs` that is the parameters `ours`, slash-separated paths; of `collection`."""
  theirs: str
  ours: tuple[str, ...]
  form: Form
  collection: str = 'params'


def key(theirs: str, ours: str | Sequence[str], form: Form | None = None, collection: str = 'params') -> Key:
  return Key(theirs, (ours,) if isinstance(ours, str) else tuple(ours), form or same, collection)


same = Form(lambda x: (x,), lambda x: x)
turned = Form(lambda x: (x.T,), lambda x: x.T)                                  # [out, in] <-> [in, out]
image = Form(lambda x: (x.transpose(2, 3, 1, 0),), lambda x: x.transpose(3, 2, 0, 1))     # OIHW <-> HWIO


def shaped(ours: tuple[int, ...], theirs: tuple[int, ...]) -> Form:
  return Form(lambda x: (_shape(x, theirs).reshape(ours),), lambda x: x.reshape(theirs))


def _shape(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  if x.shape != tuple(shape):
    raise ValueError(f'has the shape {list(x.shape)}, and its config says {list(shape)}')
  return x


def to_heads(heads: int, size: int) -> Form:
  """[heads * size, D] <-> [D, heads, size]; a bias [heads * size] <-> [heads, size]."""
  def read(x):
    if x.shape[0] != heads * size:
      raise ValueError(f'has {x.shape[0]} rows, and its config says {heads} heads of {size}')
    return (x.T.reshape(*x.shape[1:], heads, size),)
  return Form(read, lambda x: x.reshape(*x.shape[:-2], heads * size).T)


def from_heads(heads: int, size: int) -> Form:
  """[D, heads * size] <-> [heads, size, D]."""
  def read(x):
    if x.ndim != 2 or x.shape[1] != heads * size:
      raise ValueError(f'has the shape {list(x.shape)}, and its config says {heads} heads of {size}')
    return (x.T.reshape(heads, size, -1),)
  return Form(read, lambda x: x.reshape(heads * size, -1).T)


def after(first: Form, form: Form) -> Form:
  """`form` of what `first` makes of their tensor."""
  return Form(lambda x: form.read(first.read(x)[0]), lambda *parts: first.write(form.write(*parts)))


def fused(sizes: Sequence[int], forms: Sequence[Form]) -> Form:
  """Several maps side by side along the first axis of theirs, `sizes` rows each."""
  ends = np.cumsum([0, *sizes])
  def read(x):
    if x.shape[0] != ends[-1]:
      raise ValueError(f'has {x.shape[0]} rows, and its config says {" + ".join(map(str, sizes))}')
    return tuple(f.read(x[a:b])[0] for f, a, b in zip(forms, ends[:-1], ends[1:]))
  return Form(read, lambda *parts: np.concatenate([f.write(p) for f, p in zip(forms, parts)]))


def interleaved(heads: int, size: int, count: int) -> Form:
  """`count` maps to heads, head by head: [heads * count * size, D] <-> count times [D, heads, size]."""
  def read(x):
    if x.shape[0] != heads * count * size:
      raise ValueError(f'has {x.shape[0]} rows, and its config says {heads} heads of {count} times {size}')
    apart = x.reshape(heads, count, size, *x.shape[1:])
    return tuple(np.moveaxis(apart[:, i], (0, 1), (-2, -1)) for i in range(count))
  def write(*parts):
    apart = np.stack([np.moveaxis(p, (-2, -1), (0, 1)) for p in parts], 1)
    return apart.reshape(heads * count * size, *apart.shape[3:])
  return Form(read, write)


def linear(theirs: str, ours: str, form: Form = turned, bias: bool = True) -> list[Key]:
  """The two keys of a linear map: weight and, if there is one, bias; `form` is that of both, save `turned`."""
  out = [key(f'{theirs}.weight', f'{ours}/kernel', form)]
  return out + ([key(f'{theirs}.bias', f'{ours}/bias', same if form is turned else form)] if bias else [])


def norm(theirs: str, ours: str, bias: bool = True) -> list[Key]:
  """The gain and, for a layer norm, the bias of a norm of ours at `ours`."""
  out = [key(f'{theirs}.weight', f'{ours}/affine/scale')]
  return out + ([key(f'{theirs}.bias', f'{ours}/affine/bias')] if bias else [])


def attention(block: str, names: Sequence[str], heads: int, size: int, kv_heads: int | None = None, *,
              bias: bool = True, out_bias: bool = True) -> list[Key]:
  """Separate query, key, value and output maps called `names` of the attention of a block."""
  at = f'{block}/mixer/heads'
  out = []
  for name, ours, count in zip(names, ('query', 'key', 'value'), (heads, kv_heads or heads, kv_heads or heads)):
    out += linear(name, f'{at}/{ours}', to_heads(count, size), bias)
  out.append(key(f'{names[3]}.weight', f'{at}/out/kernel', from_heads(heads, size)))
  return out + ([key(f'{names[3]}.bias', f'{at}/out/bias')] if out_bias else [])


def blocks(depth: int, of_block: Callable[[int, str], Iterable[Key]], stage: int = 0, first: int = 0) -> list[Key]:
  """The keys of all blocks of a stage: `of_block(layer, path of the block)`."""
  return [k for i in range(depth) for k in of_block(first + i, f'stage_{stage}/block_{i}')]


def checked(value: Any, what: str, allowed: Sequence[Any]) -> Any:
  """`value`, if it is one of those that are supported."""
  if value not in allowed:
    raise ValueError(f'{what} is {value!r}; supported: {", ".join(map(repr, allowed))}')
  return value

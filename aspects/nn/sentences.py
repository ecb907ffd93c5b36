"""The head of a sentence encoder: what modules.json of sentence-transformers asks for (Reimers & Gurevych 2019)."""
from typing import Any

from aspects.nn import tensors
from aspects.nn.huggingface import Config
from aspects.nn.keys import checked

POOLS = {'mean_tokens': 'mean', 'mean': 'mean', 'cls_token': 'first', 'cls': 'first', 'lasttoken': 'last'}


def head(c: Config, width: int) -> dict[str, Any] | None:
  """The spec of the head `embedding` that modules.json asks for; None where there is no such file.

  Raises:
    ValueError: a module that is not Transformer, Pooling or Normalize in this order, or another kind of pooling."""
  path = c.directory / 'modules.json' if c.directory is not None else None
  if path is None or not path.is_file():
    return None
  modules = tensors.parse(path, kind=list)
  kinds = [str(m.get('type')).rsplit('.', 1)[-1] for m in modules]
  checked(tuple(kinds), str(path), (('Transformer', 'Pooling'), ('Transformer', 'Pooling', 'Normalize')))
  return dict(name='embedding', pool=_pool(c, str(modules[1].get('path')), width), unit=len(kinds) == 3)


def _pool(c: Config, folder: str, width: int) -> str:
  path = c.directory / folder / 'config.json'
  said = tensors.parse(path)
  checked(said.get('word_embedding_dimension', width), f'{path}: word_embedding_dimension', (width,))
  chosen = [k.removeprefix('pooling_mode_') for k, v in said.items() if k.startswith('pooling_mode_') and v is True]
  if 'pooling_mode' in said:
    chosen.append(said['pooling_mode'])
  if len(chosen) != 1:
    raise ValueError(f'{path} asks for {len(chosen)} kinds of pooling, {", ".join(map(str, chosen))}; one is supported')
  return POOLS[checked(chosen[0], f'{path}: pooling', tuple(POOLS))]

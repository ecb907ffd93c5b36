"""Loading a random Llama of a billion parameters beside reading its file: `python -m benchmarks.loading [--scale 1]`.

The directory is made first (random bits of finite numbers), in a temporary folder, and read from the page cache by all:
`read` copies the file into memory that is there, which is the limit; `load` maps, transposes and stacks it. Peak memory
is that of a process of its own, beyond what it has before, without the pages of the file that the system maps.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import ml_dtypes
import numpy as np
import safetensors.numpy

from aspects import pretrained
from benchmarks import timing

CONFIG = dict(architectures=['LlamaForCausalLM'], model_type='llama', vocab_size=32000, hidden_size=2048,
              intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
              rms_norm_eps=1e-5, hidden_act='silu', tie_word_embeddings=False, rope_theta=10000.0)


def make(directory: pathlib.Path, scale: float, dtype: str) -> pathlib.Path:
  """A directory of random tensors; `scale` of the layers."""
  config = {**CONFIG, 'num_hidden_layers': max(1, round(CONFIG['num_hidden_layers'] * scale))}
  d, f, v, kv = 2048, 5632, 32000, 2048 // 8
  tensors, rng = {}, np.random.default_rng(0)
  def add(name, *shape):
    bits = rng.integers(0, 1 << 14, np.prod(shape), np.uint16)            # small positive numbers of bfloat16
    tensors[name] = bits.view(ml_dtypes.bfloat16).reshape(shape).astype(dtype)
  add('model.embed_tokens.weight', v, d)
  add('lm_head.weight', v, d)
  add('model.norm.weight', d)
  for i in range(config['num_hidden_layers']):
    at = f'model.layers.{i}'
    for name, *shape in (('self_attn.q_proj', d, d), ('self_attn.k_proj', kv, d), ('self_attn.v_proj', kv, d),
                         ('self_attn.o_proj', d, d), ('mlp.gate_proj', f, d), ('mlp.up_proj', f, d),
                         ('mlp.down_proj', d, f), ('input_layernorm', d), ('post_attention_layernorm', d)):
      add(f'{at}.{name}.weight', *shape)
  safetensors.numpy.save_file(tensors, directory / 'model.safetensors')
  (directory / 'config.json').write_text(json.dumps(config))
  return directory / 'model.safetensors'


def anonymous() -> int:
  """Bytes of this process that are no pages of a file."""
  return 1024 * int(re.search(r'RssAnon:\s+(\d+)', pathlib.Path('/proc/self/status').read_text())[1])


def peak(directory: str) -> None:
  """Prints by how many bytes memory rises at most while the directory is loaded."""
  import jax
  jax.block_until_ready(jax.numpy.zeros(1))
  before, highest, done = anonymous(), [0], threading.Event()
  def watch():
    while not done.wait(0.002):
      highest[0] = max(highest[0], anonymous() - before)
  watcher = threading.Thread(target=watch)
  watcher.start()
  jax.block_until_ready(pretrained.load(directory).variables)
  done.set()
  watcher.join()
  print(max(highest[0], anonymous() - before))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--scale', type=float, default=1.0, help='share of the 22 layers')
  parser.add_argument('--dtype', default='bfloat16')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--peak', help=argparse.SUPPRESS)
  a = parser.parse_args()
  if a.peak:
    return peak(a.peak)
  with tempfile.TemporaryDirectory() as folder:
    path = make(pathlib.Path(folder), a.scale, a.dtype)
    size = path.stat().st_size
    room = np.empty(size, np.uint8)
    room[:] = 0
    def read():
      with open(path, 'rb', buffering=0) as file:
        view, at = memoryview(room), 0
        while at < size:
          at += file.readinto(view[at:])
      return np.zeros(1)
    def load():
      return pretrained.load(folder).variables
    times = timing.rounds({'load': load, 'read: the file into memory that is there': read}, a.repeats)
    timing.table(f'Loading {size / 2:,.0f} parameters of {a.dtype}, {size / 1e9:.2f} GB', times,
                 'read: the file into memory that is there')
    start = time.perf_counter()
    out = subprocess.run([sys.executable, '-m', 'benchmarks.loading', '--peak', folder], capture_output=True, text=True,
                         check=True)
    print(f'peak memory {int(out.stdout.split()[-1]) / size:.3f} of the file '
          f'(a process of its own, {time.perf_counter() - start:.1f} s with its start)')


if __name__ == '__main__':
  main()

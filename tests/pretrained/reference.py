"""Tiny random networks of transformers, saved as users find them, with every residual of a forward pass in torch."""
import json
import os
import pathlib
import warnings

import numpy as np

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
with warnings.catch_warnings():
  warnings.simplefilter('ignore')
  import torch
  import transformers


def model(kind, config, seed=0):
  """A torch model with every parameter random, norms and biases too, so that none can be swapped unseen."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    torch.manual_seed(seed)
    net = getattr(transformers, kind)._from_config(config, attn_implementation='eager').eval()
  with torch.no_grad():
    for parameter in net.parameters():
      parameter.normal_(0, 0.5 / (parameter.shape[-1] if parameter.ndim else 1) ** 0.5).add_(0.1)
    for name, buffer in net.named_buffers():
      if name.endswith('running_var'):
        buffer.uniform_(0.5, 2)
      elif name.endswith('running_mean'):
        buffer.normal_()
  return net


def save(net, directory, **options):
  """The directory as transformers writes it."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    net.save_pretrained(directory, **options)
  return pathlib.Path(directory)


def change(directory, **fields):
  """Rewrites fields of config.json."""
  path = pathlib.Path(directory) / 'config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def run(net, *modules, **inputs):
  """(outputs, {module: its output, or that and what it was handed under 'module.in'}) in the model's precision."""
  seen, hooks = {}, []
  first = lambda value: value[0] if isinstance(value, (tuple, list)) else value
  def note(name):
    def hook(module, args, kwargs, out):
      given = args[0] if args else next(iter(kwargs.values()))
      # Copies: a residual unit of torch may add to what its branch gave in place.
      seen[name], seen[f'{name}.in'] = first(out).detach().numpy().copy(), first(given).detach().numpy().copy()
    return hook
  for name in modules:
    hooks.append(net.get_submodule(name).register_forward_hook(note(name), with_kwargs=True))
  with torch.no_grad():
    out = net(**{k: v if isinstance(v, bool) else torch.as_tensor(np.array(v)) for k, v in inputs.items()})
  for hook in hooks:
    hook.remove()
  return out, seen


def close(ours, theirs, rtol=1e-5):
  """Largest difference relative to the largest value."""
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
  assert np.isfinite(ours).all()
  error = np.abs(ours - theirs).max() / np.abs(theirs).max()
  assert error <= rtol, error

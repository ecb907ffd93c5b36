"""The laws of encoders of BERT's kind: every site against torch, whatever the class, the mask and the precision."""
import contextlib
import functools
import json
import pathlib
import tempfile

import jax
import numpy as np
import safetensors.numpy

import aspects
from aspects import pretrained
from tests.pretrained import reference

B, T, LENGTHS = 3, 9, (9, 6, 1)
MASK = (np.arange(T)[None] < np.array(LENGTHS)[:, None]).astype(np.float32)
IDS = np.random.default_rng(0).integers(5, 50, (B, T)).astype(np.int32)
TYPES = (np.arange(T)[None] >= np.array([[4], [3], [9]])).astype(np.int32)
SIZES = dict(vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40,
             max_position_embeddings=16, hidden_act='gelu', layer_norm_eps=1e-5)
FIELDS = ('embed', 'final_norm', 'resid_*', 'mixer_*', 'channel_*', 'q.*', 'k.*', 'v.*', 'z.*', 'attn_*')


@functools.cache
def made(kind, dtype='float32', **fields):
  """(torch model, directory) of a class of transformers, tiny and random; not to be written to."""
  config = getattr(reference.transformers, f'{kind.split("For")[0].removesuffix("Model")}Config')
  net = sharpened(reference.model(kind, config(**{**SIZES, **fields})))
  net = net.double() if dtype == 'float64' else net
  return net, reference.save(net, tempfile.mkdtemp())


def sharpened(net):
  """Gains near 1, and maps without a common sign that are large enough: who reads whom changes the outputs."""
  with reference.torch.no_grad():
    for name, parameter in net.named_parameters():
      if parameter.ndim > 1:
        parameter.sub_(0.1).mul_(2)
      elif name.endswith('weight'):
        parameter.add_(0.8)
  return net


@functools.cache
def expected(kind, dtype='float32', types=True, **fields):
  """(outputs, {site: tensor}) of torch."""
  net, _ = made(kind, dtype, **fields)
  body = '' if kind.endswith('Model') else f'{net.base_model_prefix}.'
  parts = {'q': 'attention.self.query', 'k': 'attention.self.key', 'v': 'attention.self.value',
           'z': 'attention.output.dense.in', 'mixer_raw': 'attention.output.dense',
           'mixer_out': 'attention.output.dense', 'mixer_sum': 'attention.output.LayerNorm.in',
           'resid_mid': 'attention.output.LayerNorm', 'channel_in': 'attention.output.LayerNorm',
           'channel_pre': 'intermediate.dense', 'channel_act': 'output.dense.in', 'channel_raw': 'output.dense',
           'channel_out': 'output.dense', 'channel_sum': 'output.LayerNorm.in', 'resid_post': 'output.LayerNorm',
           'resid_pre': 'attention.self.query.in', 'mixer_in': 'attention.self.query.in'}
  layers = net.config.num_hidden_layers
  at = {f'{site}.{i}': f'{body}encoder.layer.{i}.{part}' for i in range(layers) for site, part in parts.items()}
  modules = {name.removesuffix('.in') for name in at.values()} | {f'{body}embeddings'}
  given = {'token_type_ids': TYPES} if types else {}
  out, seen = reference.run(net, *sorted(modules), input_ids=IDS, attention_mask=MASK.astype(np.int64),
                            output_attentions=True, **given)
  found = {site: seen[name] for site, name in at.items()}
  heads = net.config.num_attention_heads
  found |= {s: x.reshape(B, T, heads, -1) for s, x in found.items() if s.split('.')[0] in ('q', 'k', 'v', 'z')}
  found |= {f'attn_probs.{i}': x.numpy() for i, x in enumerate(out.attentions)}
  found |= {'embed': seen[f'{body}embeddings'], 'final_norm': found[f'resid_post.{layers - 1}']}
  return out, found


def real(x):
  """Zero where a token, or the query of a map of attention, is padding."""
  x = np.asarray(x)
  if x.ndim < 3:
    return x
  mask = MASK[:, None, :, None] if x.shape[1:3] != (T, x.shape[2]) or x.shape[2:] == (T, T) else MASK
  return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)) > 0, x, 0)


def close(sites, found, rtol=1e-5):
  """All sites at real tokens; none is left out."""
  assert set(found) <= set(sites), sorted(set(found) - set(sites))
  for site, x in found.items():
    try:
      reference.close(real(sites[site]), real(x), rtol)
    except AssertionError as error:
      raise AssertionError(f'{site}: {error}') from error


@functools.cache
def read(kind, scan, dtype='float32', **fields):
  return pretrained.load(made(kind, dtype, **fields)[1], scan=scan, dtype=dtype)


@functools.cache
def ours(kind, scan, dtype='float32', types=True, **fields):
  """(pretrained, output, {site: tensor}) of this library."""
  with jax.enable_x64(True) if dtype == 'float64' else contextlib.nullcontext():
    loaded = read(kind, scan, dtype, **fields)
    inputs = (IDS, MASK, None, TYPES) if types else (IDS, MASK)
    return loaded, *jax.tree.map(np.asarray, record(loaded, loaded.variables, *inputs))


def record(loaded, variables, *inputs):
  """(output, {site: tensor}) of all sites but `logits` and `embedding`, which are the output."""
  pooled = loaded.net.head['name'] == 'classify' or loaded.net.head.get('pool', 'tokens') != 'tokens'
  return aspects.forward(loaded.net, variables, *inputs, record=(*FIELDS, *(['pooled'] if pooled else [])))


def output(out):
  """Of a network of transformers, by the name that its class gives to it."""
  return next(out[name] for name in ('logits', 'last_hidden_state', 'prediction_logits') if name in out).numpy()


def invariants(sites, variables, layers, scan):
  """docs/sites.md, for post-norm blocks."""
  for i in range(layers):
    s = lambda name: np.asarray(sites[f'{name}.{i}'], np.float64)
    stage = variables['params']['stage_0']
    block = jax.tree.map(lambda x: x[i], stage['block']) if scan else stage[f'block_{i}']
    out, tolerance = block['channel']['out'], dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.einsum('bhqk,bkhd->bqhd', s('attn_probs'), s('v')), s('z'), **tolerance)
    np.testing.assert_array_equal(sites[f'resid_pre.{i}'] + sites[f'mixer_out.{i}'], sites[f'mixer_sum.{i}'])
    np.testing.assert_array_equal(sites[f'resid_mid.{i}'] + sites[f'channel_out.{i}'], sites[f'channel_sum.{i}'])
    np.testing.assert_allclose(s('channel_act') @ np.float64(out['kernel']) + np.float64(out['bias']), s('channel_raw'),
                               **tolerance)


def exported(loaded, source):
  """The directory that `save` wrote, bitwise that of `source`."""
  to = pathlib.Path(tempfile.mkdtemp()) / 'new'
  pretrained.save(loaded, to)
  same(source, to)
  return to


def same(source, to):
  a, b = (safetensors.numpy.load_file(pathlib.Path(d) / 'model.safetensors') for d in (source, to))
  assert a.keys() == b.keys(), a.keys() ^ b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
    assert a[name].tobytes() == b[name].tobytes(), name
  assert json.loads((to / 'config.json').read_text()) == json.loads((pathlib.Path(source) / 'config.json').read_text())


def rewritten(source, change, **fields):
  """A copy of a directory with its tensors changed by `change({name: tensor})` and fields of its config."""
  to = pathlib.Path(tempfile.mkdtemp())
  (to / 'config.json').write_text((source / 'config.json').read_text())
  safetensors.numpy.save_file(change(safetensors.numpy.load_file(source / 'model.safetensors')),
                              to / 'model.safetensors')
  reference.change(to, **fields)
  return to


def swapped(variables, a, b):
  """Variables whose block 1 has two maps to heads exchanged."""
  heads = variables['params']['stage_0']['block_1']['mixer']['heads']
  return replaced(variables, {**heads, a: heads[b], b: heads[a]})


def turned(variables):
  """Variables whose block 1 has the query's heads in another order."""
  heads = variables['params']['stage_0']['block_1']['mixer']['heads']
  return replaced(variables, {**heads, 'query': jax.tree.map(lambda x: x[..., ::-1, :], heads['query'])})


def replaced(variables, heads):
  params = variables['params']
  block = {**params['stage_0']['block_1'], 'mixer': {'heads': heads}}
  return {**variables, 'params': {**params, 'stage_0': {**params['stage_0'], 'block_1': block}}}

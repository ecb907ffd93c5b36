"""The laws of networks of texts and images in one directory: every site of both towers against torch."""
import contextlib
import functools
import pathlib
import tempfile
import warnings

import jax
import numpy as np

import aspects
from aspects import pretrained
from tests.pretrained import encoding, reference

B, T, LENGTHS = 3, 7, (7, 4, 2)
END = 49
MASK = (np.arange(T)[None] < np.array(LENGTHS)[:, None]).astype(np.float32)
IDS = np.random.default_rng(0).integers(5, 45, (B, T)).astype(np.int32)
IDS = np.where(np.arange(T)[None] >= np.array(LENGTHS)[:, None] - 1, END, IDS)     # ended, and padded with the end
PIXELS = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
TEXT = dict(vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3,
            max_position_embeddings=9, eos_token_id=END, pad_token_id=END, layer_norm_eps=1e-4)
VISION = dict(hidden_size=16, intermediate_size=28, num_hidden_layers=2, num_attention_heads=2, image_size=8,
              patch_size=4, layer_norm_eps=1e-4)
FIELDS = ('embed', 'final_norm', 'resid_*', 'mixer_*', 'channel_*', 'q.*', 'k.*', 'v.*', 'z.*', 'attn_*')
PARTS = {'q': 'self_attn.q_proj', 'k': 'self_attn.k_proj', 'v': 'self_attn.v_proj', 'z': 'self_attn.out_proj.in',
         'mixer_raw': 'self_attn.out_proj', 'mixer_out': 'self_attn.out_proj', 'mixer_in': 'layer_norm1',
         'resid_pre': 'layer_norm1.in', 'resid_mid': 'layer_norm2.in', 'channel_in': 'layer_norm2',
         'channel_pre': 'mlp.fc1', 'channel_act': 'mlp.fc2.in', 'channel_raw': 'mlp.fc2', 'channel_out': 'mlp.fc2'}


def config(kind, **fields):
  """The config of a class of transformers; fields of its tower, or `text_` and `vision_` fields of two."""
  name = kind.removesuffix('WithProjection').removesuffix('Model')
  make = getattr(reference.transformers, f'{name}Config')
  if name.endswith(('Text', 'Vision')):
    return make(**{**(TEXT if name.endswith('Text') else VISION), **fields})
  of = lambda tower: {k.removeprefix(f'{tower}_'): v for k, v in fields.items() if k.startswith(f'{tower}_')}
  rest = {k: v for k, v in fields.items() if not k.startswith(('text_', 'vision_'))}
  return make(text_config={**TEXT, **of('text')}, vision_config={**VISION, **of('vision')}, **rest)


@functools.cache
def made(kind, dtype='float32', **fields):
  """(torch model, directory) of a class of transformers, tiny and random; not to be written to."""
  net = encoding.sharpened(reference.model(kind, config(kind, **fields)))
  if dtype == 'float64':                               # their plain attention is in float32, whatever the rest is in
    net = net.double()
    net.set_attn_implementation('sdpa')
  return net, reference.save(net, tempfile.mkdtemp())


def body(net, tower):
  """(module of a tower, its name in the network)."""
  named = dict(net.named_modules())
  name = f'{tower}_model' if f'{tower}_model' in named else ''
  return named[name], f'{name}.' if name else ''


def inputs(tower, masked, dtype='float32'):
  """(what torch takes, what we take)."""
  if tower == 'vision':
    pixels = PIXELS.astype(dtype)
    return dict(pixel_values=pixels.transpose(0, 3, 1, 2)), (pixels,)
  given = dict(attention_mask=MASK.astype(np.int64)) if masked else {}
  return dict(input_ids=IDS, **given), (IDS, MASK) if masked else (IDS,)


@functools.cache
def expected(kind, tower, masked=True, dtype='float32', **fields):
  """(outputs of the tower, {site: tensor}) of torch."""
  net, _ = made(kind, dtype, **fields)
  part, _ = body(net, tower)
  layers, heads = part.config.num_hidden_layers, part.config.num_attention_heads
  at = {f'{site}.{i}': f'encoder.layers.{i}.{name}' for i in range(layers) for site, name in PARTS.items()}
  at |= {f'resid_post.{i}': f'encoder.layers.{i}' for i in range(layers)}
  modules = sorted({name.removesuffix('.in') for name in at.values()})
  out, seen = reference.run(part, *modules, output_attentions=dtype == 'float32', **inputs(tower, masked, dtype)[0])
  found = {site: seen[name] for site, name in at.items()}
  found |= {s: x.reshape(*x.shape[:2], heads, -1) for s, x in found.items() if s.split('.')[0] in ('q', 'k', 'v', 'z')}
  found |= {f'attn_probs.{i}': x.numpy() for i, x in enumerate(out.attentions or ())}
  return out, found | {'embed': found['resid_pre.0']}


@functools.cache
def read(kind, tower, scan=False, dtype='float32', **fields):
  where = made(kind, dtype, **fields)[1]
  one = kind.removesuffix('WithProjection').removesuffix('Model').endswith(('Text', 'Vision'))
  return pretrained.load(where if one else f'{where}#{tower}', scan=scan, dtype=dtype)


@functools.cache
def ours(kind, tower, scan=False, masked=True, dtype='float32', **fields):
  """(pretrained, output, {site: tensor}) of this library."""
  with jax.enable_x64(True) if dtype == 'float64' else contextlib.nullcontext():
    loaded = read(kind, tower, scan, dtype, **fields)
    return loaded, *jax.tree.map(np.asarray, record(loaded, loaded.variables, *inputs(tower, masked, dtype)[1]))


def record(loaded, variables, *given):
  pooled = loaded.net.head.get('pool') != 'tokens'
  return aspects.forward(loaded.net, variables, *given, record=(*FIELDS, *(['pooled'] if pooled else [])))


def real(x, masked):
  """Zero where a token, or the query of a map of attention, is padding."""
  if not masked or x.ndim < 3:
    return x
  mask = MASK[:, None, :, None] if x.shape[-2:] == (T, T) else MASK.reshape(B, T, *(1,) * (x.ndim - 2))
  return np.where(mask > 0, x, 0)


def close(sites, found, masked=False, rtol=1e-5):
  assert set(found) <= set(sites), sorted(set(found) - set(sites))
  for site, x in found.items():
    try:
      reference.close(real(sites[site], masked), real(x, masked), rtol)
    except AssertionError as error:
      raise AssertionError(f'{site}: {error}') from error


def invariants(sites, variables, layers, scan):
  """docs/sites.md, for pre-norm blocks."""
  for i in range(layers):
    s = lambda name: np.asarray(sites[f'{name}.{i}'], np.float64)
    stage = variables['params']['stage_0']
    out = (jax.tree.map(lambda x: x[i], stage['block']) if scan else stage[f'block_{i}'])['channel']['out']
    tolerance = dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.einsum('bhqk,bkhd->bqhd', s('attn_probs'), s('v')), s('z'), **tolerance)
    np.testing.assert_array_equal(sites[f'resid_pre.{i}'] + sites[f'mixer_out.{i}'] + sites[f'channel_out.{i}'],
                                  sites[f'resid_post.{i}'])
    np.testing.assert_allclose(s('channel_act') @ np.float64(out['kernel']) + np.float64(out['bias']), s('channel_raw'),
                               **tolerance)


def read_by_transformers(kind, directory):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    net, info = getattr(reference.transformers, kind).from_pretrained(directory, output_loading_info=True,
                                                                     attn_implementation='eager')
  assert not info['missing_keys'] and not info['unexpected_keys']
  return net.eval()


def exported(loaded, source):
  to = pathlib.Path(tempfile.mkdtemp()) / 'new'
  pretrained.save(loaded, to)
  encoding.same(source, to)
  return to

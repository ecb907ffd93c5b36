"""Laws of the importers of language models: the test of an architecture derives a class from `Laws` and fills it.

The oracle is a tiny random network of transformers with hooks on its modules. `layout` says which of its tensors each
site is; `{i}` is the layer, `.in` what a module is handed; (module, function) where a site is a part of a tensor.
"""
import atexit
import contextlib
import functools
import json
import pathlib
import shutil
import tempfile
import warnings

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import aspects
from aspects import pretrained
from tests.pretrained import reference
from tests.pretrained.reference import torch, transformers

VOCAB, LENGTH = 50, 12


def layout(block='model.layers.{i}', norms=('input_layernorm', 'post_attention_layernorm'), attention='self_attn',
           out='o_proj', mlp='mlp', pre='gate_proj', gate='up_proj', down='down_proj', **more):
  """The layout of Llama's kind under other names; `more` are further sites, None takes one away."""
  at = lambda *names: '.'.join((block, *names))
  out = {
      'resid_pre': at('in'), 'resid_mid': at(norms[1], 'in'), 'resid_post': block, 'mixer_in': at(norms[0]),
      'channel_in': at(norms[1]), 'mixer_raw': at(attention), 'q': at(attention, 'q_proj'),
      'k': at(attention, 'k_proj'), 'v': at(attention, 'v_proj'), 'z': at(attention, out, 'in'),
      'channel_pre': at(mlp, pre), 'channel_gate': at(mlp, gate), 'channel_act': at(mlp, down, 'in'),
      'channel_raw': at(mlp, down), 'embed': block.format(i=0) + '.in', 'final_norm': 'model.norm', 'logits': 'lm_head',
      **more}
  return {site: place for site, place in out.items() if place is not None}


class Laws:
  """A subclass called `Test...` is collected; the first of its cases is the one for laws that need only one."""
  config = ''                # a configuration class of transformers
  cases = {}                 # {name: (a class of transformers, fields of the config)}
  layout = layout()
  usual = {'vocab_size': VOCAB}                      # fields that all cases have
  prefix = 'model.'          # stands before the names of the body in a model with a head
  refused = ()               # ((field, a value that is not supported, what the error names), ...)

  @classmethod
  def layout_of(cls, case):
    """{site: place} of a case."""
    return cls.layout

  @classmethod
  def inputs(cls):
    """(what ours is given, what theirs is given, bool [B, T]: real tokens); the second text is padded."""
    ids = np.random.default_rng(0).integers(0, VOCAB, (2, LENGTH))
    mask = np.ones((2, LENGTH), bool)
    mask[1, -3:] = False
    return (ids.astype(np.int32), mask.astype(np.float32)), dict(input_ids=ids, attention_mask=mask.astype(int)), mask

  def pytest_generate_tests(self, metafunc):
    if 'case' in metafunc.fixturenames:
      metafunc.parametrize('case', list(self.cases))

  @property
  def first(self):
    return next(iter(self.cases))

  # --- the laws ---

  def test_every_site_is_the_tensor_of_its_name(self, case):
    compare(ours(type(self), case, True), theirs(type(self), case), self.inputs()[2])

  def test_unrolled_blocks_have_the_same_sites(self):
    acts = ours(type(self), self.first, False)
    compare(acts, theirs(type(self), self.first), self.inputs()[2])
    assert acts.keys() == ours(type(self), self.first, True).keys()

  def test_float64(self):
    with jax.enable_x64(True):
      acts = ours(type(self), self.first, True, 'float64')
      assert all(np.asarray(a).dtype == np.float64 for a in acts.values())
    compare(acts, theirs(type(self), self.first, True), self.inputs()[2], 1e-10)

  def test_invariants(self, case):
    check_invariants(ours(type(self), case, True), loaded(type(self), case, True).variables['params'])

  def test_a_wrong_layout_fails_the_parity(self):
    cls, expected = type(self), theirs(type(self), self.first)
    right, mask = loaded(cls, self.first, False), self.inputs()[2]
    for what, params in wrong(right.variables['params']):
      acts = recorded(right.net, {**right.variables, 'params': params}, self.inputs()[0])
      with pytest.raises(AssertionError):
        compare(acts, expected, mask)
        pytest.fail(f'{what} was not noticed')

  def test_it_is_written_as_it_was_read(self, case, tmp_path):
    cls = type(self)
    pretrained.save(loaded(cls, case, True), tmp_path / 'out')
    before, after = tensors_of(directory(cls, case)), tensors_of(tmp_path / 'out')
    assert before.keys() == after.keys()
    for name, value in before.items():
      assert (value.dtype, value.shape) == (after[name].dtype, after[name].shape), name
      np.testing.assert_array_equal(value, after[name], err_msg=name)

  def test_transformers_reads_what_was_written(self, tmp_path):
    cls, kind = type(self), self.cases[self.first][0]
    pretrained.save(loaded(cls, self.first, False), tmp_path / 'out')
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      again = getattr(transformers, kind).from_pretrained(tmp_path / 'out', attn_implementation='eager').eval()
    given = self.inputs()[1]
    np.testing.assert_array_equal(output(reference.run(again, **given)[0]),
                                  output(reference.run(torch_net(cls, self.first), **given)[0]))

  def test_an_unknown_field_is_refused(self, tmp_path):
    with pytest.raises(ValueError, match='twisted_positions.*does not know'):
      described(directory(type(self), self.first), tmp_path, twisted_positions=3)

  def test_an_unsupported_value_is_refused(self, tmp_path):
    assert self.refused
    for field, value, named in self.refused:
      with pytest.raises(ValueError, match=named):
        described(directory(type(self), self.first), tmp_path, **{field: value})


# --- the two networks -----------------------------------------------------------------------------------------------

@functools.cache
def torch_net(cls, case):
  kind, fields = cls.cases[case]
  return reference.model(kind, getattr(transformers, cls.config)(**{**cls.usual, **fields}))


@functools.cache
def directory(cls, case):
  path = tempfile.mkdtemp()
  atexit.register(shutil.rmtree, path, ignore_errors=True)
  return reference.save(torch_net(cls, case), path)


@functools.cache
def loaded(cls, case, scan):
  return pretrained.load(directory(cls, case), scan=scan)


def recorded(net, variables, given):
  """{site: value} of all sites, and 'output'."""
  out, acts = aspects.forward(net, variables, *given, record=('*',))
  return jax.device_get({**acts, 'output': out})


@functools.cache
def ours(cls, case, scan, dtype='float32'):
  found = loaded(cls, case, scan)
  return recorded(found.net.clone(dtype=dtype), found.variables, cls.inputs()[0])


@functools.cache
def theirs(cls, case, double=False):
  """{site: value} of the sites of the layout, attn_probs and 'output', in float32 or throughout in float64."""
  net, depth = torch_net(cls, case), loaded(cls, case, True).net.depth
  with exact() if double else contextlib.nullcontext():
    if double:
      other = getattr(transformers, cls.cases[case][0])._from_config(
          net.config, attn_implementation='eager', dtype=torch.float64).eval()
      other.load_state_dict(net.state_dict())
      net = other
    places = {}
    for site, place in cls.layout_of(case).items():
      path, part = (place, lambda x: x) if isinstance(place, str) else place
      for i in range(depth) if '{i}' in path else (None,):
        places[site if i is None else f'{site}.{i}'] = path.format(i=i), part
    names = {path.removesuffix('.in') for path, _ in places.values()}
    body = not any(n == cls.prefix[:-1] for n, _ in net.named_children())
    bare = {n: n.removeprefix(cls.prefix) if body else n for n in names}
    known = {n for n, _ in net.named_modules()}
    if missing := {n for n, b in bare.items() if b not in known} - ({'lm_head'} if body else set()):
      raise KeyError(f'{type(net).__name__} has no {sorted(missing)}')
    out, seen = reference.run(net, *(b for b in bare.values() if b in known), output_attentions=True, **cls.inputs()[1])
  found = {}
  for site, (path, part) in places.items():
    name = path.removesuffix('.in')
    if bare[name] in known:
      found[site] = np.array(part(seen[bare[name] + path.removeprefix(name)]))
  found |= {f'attn_probs.{i}': a.numpy() for i, a in enumerate(out.attentions)}
  return found | {'output': output(out)}


def output(out):
  return (out.logits if 'logits' in out else out.last_hidden_state).numpy()


@contextlib.contextmanager
def exact():
  """torch whose float32 is float64, for references that compute norms, angles and softmax in float32 by themselves."""
  patch = pytest.MonkeyPatch()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    for name in ('float32', 'float'):
      patch.setattr(torch, name, torch.float64)
    patch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    try:
      yield
    finally:
      patch.undo()


def tensors_of(path):
  found = {}
  for file in sorted(pathlib.Path(path).glob('*.safetensors')):
    found |= load_file(file)
  return found


def described(path, tmp_path, remove=(), **fields):
  """What the importer makes of the config of `path` with fields added, changed and removed."""
  raw = json.loads((path / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps({k: v for k, v in {**raw, **fields}.items() if k not in remove}))
  return pretrained.describe(tmp_path)


# --- comparisons ----------------------------------------------------------------------------------------------------

def compare(acts, expected, mask, rtol=1e-5):
  """Each of `expected` is the site of `acts` of that name: largest difference at real tokens over the largest value."""
  for name, value in expected.items():
    assert name in acts, f'{name} is no site of {sorted(acts)}'
    assert acts[name].size == value.size, (name, acts[name].shape, value.shape)
    queries = mask[:, None, :, None] if name.startswith('attn_probs') else mask.reshape(
        *mask.shape, *[1] * (value.ndim - 2))
    here, there = (np.where(queries, x.reshape(value.shape).astype(np.float64), 0) for x in (acts[name], value))
    assert np.isfinite(here).all(), name
    error = np.abs(here - there).max() / np.abs(there).max()
    assert error <= rtol, (name, error)


def layers(acts):
  """[{slot: value}] of the layers."""
  found = {}
  for name, value in acts.items():
    slot, _, layer = name.partition('.')
    if layer:
      found.setdefault(int(layer), {})[slot] = value
  return [found[i] for i in sorted(found)]


def block_params(params):
  """The parameters of each block, of unrolled and of scanned stages."""
  stage = params['stage_0']
  if 'block' in stage:
    return [jax.tree.map(lambda x: np.asarray(x[i]), stage['block']) for i in range(len(jax.tree.leaves(stage)[0]))]
  return [jax.tree.map(np.asarray, stage[f'block_{i}']) for i in range(len(stage))]


def check_invariants(acts, params):
  """Those of docs/sites.md, for every layer; what comes last is the output."""
  np.testing.assert_array_equal(acts['logits'] if 'logits' in acts else acts['final_norm'], acts['output'])
  for block, at in zip(block_params(params), layers(acts), strict=True):
    if 'channel_sum' in at:
      np.testing.assert_array_equal(at['resid_pre'] + at['mixer_out'], at['mixer_sum'])
      np.testing.assert_array_equal(at['resid_mid'] + at['channel_out'], at['channel_sum'])
    else:
      total = at['resid_pre'] + at['mixer_out'] + at['channel_out']
      near(total, at['resid_post'], 1e-6)
      if 'resid_mid' in at:
        near(at['resid_pre'] + at['mixer_out'], at['resid_mid'], 1e-6)
    groups = at['q'].shape[2] // at['v'].shape[2]
    near(np.einsum('bhqk,bkhd->bqhd', at['attn_probs'], at['v'].repeat(groups, 2)), at['z'])
    heads = block['mixer']['heads']['out']
    near(np.einsum('bqhd,hdw->bqw', at['z'], heads['kernel']) + heads.get('bias', 0), at['mixer_raw'])
    if 'out' in block['channel']:
      out = block['channel']['out']
      near(at['channel_act'] @ out['kernel'] + out.get('bias', 0), at['channel_raw'])


def near(a, b, rtol=1e-5):
  assert np.abs(a - b).max() <= rtol * np.abs(b).max(), np.abs(a - b).max() / np.abs(b).max()


def wrong(params):
  """(what, parameters) with something in layer 1 in another's place, of the same shapes."""
  right = params['stage_0']['block_1']
  def changed(**parts):
    return {**params, 'stage_0': {**params['stage_0'], 'block_1': {**right, **parts}}}
  heads = right['mixer']['heads']
  alike = [(a, b) for a, b in (('query', 'key'), ('key', 'value'))
           if jax.tree.map(np.shape, heads[a]) == jax.tree.map(np.shape, heads[b])]
  for a, b in alike:
    yield f'{a} and {b} swapped', changed(mixer={'heads': {**heads, a: heads[b], b: heads[a]}})
  yield 'another layer', changed(**params['stage_0']['block_0'])
  # All maps of the heads in another order give the same logits, and other sites.
  count, kept = heads['query']['kernel'].shape[-2], heads['key']['kernel'].shape[-2]
  if count > 1:
    turn = lambda maps, by: {k: np.roll(v, by, -2) for k, v in maps.items()}
    out = {**heads['out'], 'kernel': np.roll(heads['out']['kernel'], count // kept, 0)}
    rolled = {'query': turn(heads['query'], count // kept), 'key': turn(heads['key'], 1),
              'value': turn(heads['value'], 1), 'out': out}
    yield 'heads in another order', changed(mixer={'heads': {**heads, **rolled}})
  channel = right['channel']
  if 'gate' in channel:
    swapped = {**channel, 'pre': channel['gate'], 'gate': channel['pre']}
    yield 'the branches of the gated unit swapped', changed(channel=swapped)
  for kind in ('norm', 'branch'):
    names = [n for n in sorted(right['residual']) if kind in n]
    if len(names) > 1:
      swapped = {**right['residual'], names[0]: right['residual'][names[1]], names[1]: right['residual'][names[0]]}
      yield f'{names[0]} and {names[1]} swapped', changed(residual=swapped)

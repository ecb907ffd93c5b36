"""Sites: every tagged tensor has one name, the same however its network is laid out, and nothing is lost in silence."""
import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import edits
from aspects import net
from aspects import sites
from aspects.sites import tag
from tests import fill

D, L = 4, 3
X = fill.normal(1, 2, D)
AXES = dict(variable_axes={'params': 0, 'intermediates': 0, 'edits': 0}, split_rngs={'params': True})
traced = []


class Block(nn.Module):
  """resid_pre -> mixer_out -> resid_post, as a body of `nn.scan` too."""

  @nn.compact
  def __call__(self, x, _=None):
    traced.append(self.path)
    x = tag(self, 'resid_pre', x)
    y = tag(self, 'mixer_out', nn.Dense(D, name='map')(jnp.tanh(x)))
    return tag(self, 'resid_post', x + y), None


class Stack(nn.Module):
  """An own network with tags: `L` blocks, unrolled or scanned."""
  scan: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    x = tag(self, 'embed', nn.Dense(D, name='in')(x))
    block = nn.remat(Block) if self.remat else Block
    if self.scan:
      x, _ = nn.scan(block, length=L, **AXES)(name='block')(x, None)
    else:
      for i in range(L):
        x, _ = block(name=f'block_{i}')(x)
    return tag(self, 'logits', nn.Dense(2, name='out')(x))


def variables_of(network):
  """The same numbers for all layouts of `Stack`."""
  params = fill.variables(Stack(), X)['params']
  if network.scan:
    blocks = [params.pop(f'block_{i}') for i in range(L)]
    params['block'] = jax.tree.map(lambda *p: jnp.stack(p), *blocks)
  return {'params': params}


LAYOUTS = {'unrolled': Stack(), 'scanned': Stack(scan=True), 'remat': Stack(remat=True),
           'scanned remat': Stack(scan=True, remat=True)}
each_layout = pytest.mark.parametrize('network', LAYOUTS.values(), ids=LAYOUTS)
TABLE = ['embed', *(f'{slot}.{i}' for i in range(L) for slot in ('resid_pre', 'mixer_out', 'resid_post')), 'logits']


def named(module, *inputs, **kwargs):
  """The sites of a module that is only traced."""
  return list(sites.sites(module, jax.eval_shape(module.init, jax.random.key(0), *inputs), *inputs, **kwargs))


def body(call):
  """A module that is `call(self, x)`."""
  class Module(nn.Module):
    @nn.compact
    def __call__(self, x):
      return call(self, x)
  return Module()


# --- addresses ------------------------------------------------------------------------------------------------------

@each_layout
def test_the_table_of_addresses_is_that_of_every_layout(network):
  specs = sites.sites(network, variables_of(network), X)
  assert list(specs) == TABLE
  assert {n: s.shape for n, s in specs.items()} == {n: (2, 2) if n == 'logits' else (2, D) for n in TABLE}
  assert {s.dtype for s in specs.values()} == {jnp.dtype('float32')}


def by_hand(edit=lambda name, x: x):
  """{site: value} of `Stack`, in numpy float64."""
  params = jax.tree.map(np.float64, variables_of(Stack())['params'])
  dense = lambda p, x: x @ p['kernel'] + p['bias']
  acts = {'embed': edit('embed', dense(params['in'], np.float64(X)))}
  x = acts['embed']
  for i in range(L):
    x = acts[f'resid_pre.{i}'] = edit(f'resid_pre.{i}', x)
    y = acts[f'mixer_out.{i}'] = edit(f'mixer_out.{i}', dense(params[f'block_{i}']['map'], np.tanh(x)))
    x = acts[f'resid_post.{i}'] = edit(f'resid_post.{i}', x + y)
  return acts | {'logits': edit('logits', dense(params['out'], x))}


@each_layout
def test_recorded_values_are_those_computed_by_hand(network):
  out, acts = sites.forward(network, variables_of(network), X, record=('*',))
  expected = by_hand()
  assert list(acts) == list(expected)
  for name in expected:
    np.testing.assert_allclose(acts[name], expected[name], atol=1e-5, err_msg=name)
  np.testing.assert_array_equal(out, acts['logits'])


@each_layout
def test_edited_values_are_those_computed_by_hand(network):
  planted = {'mixer_out.1': edits.Scale(factor=-2.0), 'resid_pre.-1': edits.Add(delta=jnp.arange(4.0)),
             'embed': edits.Replace(value=0.5, on=np.array([[True], [False]]))}
  def edit(name, x):
    x = -2 * x if name == 'mixer_out.1' else x + np.arange(4) if name == f'resid_pre.{L - 1}' else x
    return np.stack([np.full(D, 0.5), x[1]]) if name == 'embed' else x
  _, acts = sites.forward(network, variables_of(network), X, record=('*',), edits=planted)
  for name, value in by_hand(edit).items():
    np.testing.assert_allclose(acts[name], value, atol=1e-5, err_msg=name)


@each_layout
def test_gradients_of_parameters_pass_through_edits(network):
  variables = variables_of(network)
  def loss(v):
    return jnp.sum(sites.forward(network, v, X, edits={'mixer_out.1': edits.Skip()})[0] ** 2)
  gradients = jax.grad(loss)(variables)['params']
  maps = gradients['block'] if network.scan else jax.tree.map(
      lambda *g: jnp.stack(g), *(gradients[f'block_{i}'] for i in range(L)))
  size = np.abs(maps['map']['kernel']).max((1, 2))
  assert size[1] == 0 and size[0] > 1e-3 and size[2] > 1e-3


def test_layers_are_flattened_over_stages():
  network = net.Net(outputs=3, embed=dict(name='pixels'), mixer=dict(name='convolutions', norm=dict(name='rms')),
                    head=dict(name='classify'), transition=dict(name='strided'), stages=((2, 4), (1, 6)))
  images = jnp.zeros((1, 4, 4, 1))
  specs = sites.sites(network, jax.eval_shape(network.init, jax.random.key(0), images), images)
  assert [n for n in specs if n.startswith('resid_post')] == ['resid_post.0', 'resid_post.1', 'resid_post.2']
  assert specs['resid_post.1'].shape == (1, 16, 4) and specs['resid_post.2'].shape == (1, 4, 6)


def test_applications_of_a_shared_block_are_layers_of_their_own():
  network = net.Net(outputs=3, embed=dict(name='vector'), channel=dict(name='mlp'), head=dict(name='classify'), depth=3,
                    width=D, stack=dict(name='shared'))
  variables = fill.variables(network, X)
  run = lambda e: sites.forward(network, variables, X, record=('resid_post.*',), edits=e)[1]
  clean, cut = run({}), run({'channel_out.1': edits.Skip()})
  assert list(clean) == ['resid_post.0', 'resid_post.1', 'resid_post.2']
  np.testing.assert_array_equal(clean['resid_post.0'], cut['resid_post.0'])
  np.testing.assert_array_equal(cut['resid_post.1'], cut['resid_post.0'])
  assert np.abs(clean['resid_post.2'] - cut['resid_post.2']).max() > 1e-3


def test_blocks_in_one_scanned_body_interleave():
  def call(self, x):
    def pair(self, x, _):
      for name in ('attention_block', 'mlp_block'):
        x, _ = nn.remat(Block)(name=name)(x)
      return x, None
    return nn.scan(pair, length=2, **AXES)(self, x, None)[0]
  module = body(call)
  assert named(module, X)[:4] == ['resid_pre.0', 'mixer_out.0', 'resid_post.0', 'resid_pre.1']
  variables = fill.variables(module, X)
  _, acts = sites.forward(module, variables, X, record=('resid_*',), edits={'resid_pre.1': edits.Add(delta=1.0)})
  np.testing.assert_allclose(acts['resid_pre.1'], acts['resid_post.0'] + 1, atol=1e-6)
  np.testing.assert_array_equal(acts['resid_pre.2'], acts['resid_post.1'])
  np.testing.assert_array_equal(acts['resid_pre.3'], acts['resid_post.2'])


def test_two_scans_follow_one_another():
  def call(self, x):
    for name in ('encoder_block', 'decoder_block'):
      x, _ = nn.scan(Block, length=2, **AXES)(name=name)(x, None)
    return x
  module = body(call)
  _, acts = sites.forward(module, fill.variables(module, X), X, record=('resid_*',))
  for layer in range(3):
    np.testing.assert_array_equal(acts[f'resid_pre.{layer + 1}'], acts[f'resid_post.{layer}'])


class Group(nn.Module):
  @nn.compact
  def __call__(self, x, _=None):
    return nn.scan(Block, length=3, **AXES)(name='block')(x, None)


def test_nested_scans_are_flattened_with_their_edits():
  module = body(lambda self, x: nn.scan(Group, length=2, **AXES)(name='group')(x, None)[0])
  _, acts = sites.forward(module, fill.variables(module, X), X, record=('resid_*',),
                          edits={'resid_pre.4': edits.Replace(value=7.0)})
  assert sum(n.startswith('resid_post') for n in acts) == 6
  for layer in range(5):
    expected = np.full((2, D), 7.0) if layer == 3 else acts[f'resid_post.{layer}']
    np.testing.assert_array_equal(acts[f'resid_pre.{layer + 1}'], expected)


def test_blocks_at_two_depths_of_nested_scans_have_no_order():
  def call(self, x):
    def pair(self, x, _):
      x, _ = nn.scan(Block, length=3, **AXES)(name='inner_block')(x, None)
      return Block(name='outer_block')(x)
    return nn.scan(pair, length=2, **AXES)(self, x, None)[0]
  with pytest.raises(ValueError, match=r"\['inner_block', 'outer_block'\] stand at different depths of nested scans"):
    named(body(call), X)


class Cell(nn.Module):
  @nn.compact
  def __call__(self, x, _=None):
    x = tag(self, 'before', x)
    return tag(self, 'after', x + 1), None


class Recurrent(nn.Module):
  """A block with a scan inside."""
  @nn.compact
  def __call__(self, x):
    x, _ = nn.scan(Cell, length=2, **AXES)(name='cell')(tag(self, 'resid_pre', x), None)
    return tag(self, 'resid_post', x)


def test_a_scan_inside_a_block_keeps_its_steps_and_can_be_edited():
  def call(self, x):
    for i in range(2):
      x = Recurrent(name=f'block_{i}')(x)
    return x
  module = body(call)
  assert named(module, X)[6:] == ['resid_pre.1', 'before.1@0', 'after.1@0', 'before.1@1', 'after.1@1', 'resid_post.1']
  _, acts = sites.forward(module, {}, X, record=('*',), edits={'after.1@0': edits.Add(delta=10.0)})
  for name, added in {'after.0@1': 2, 'before.1@0': 2, 'after.1@0': 13, 'after.1@1': 14, 'resid_post.1': 14}.items():
    np.testing.assert_allclose(acts[name], X + added, atol=1e-5)


def test_a_module_called_twice_keeps_its_calls():
  def call(self, x):
    block = Block(name='block_0')
    return block(block(x)[0])[0]
  module = body(call)
  assert named(module, X) == [f'{slot}.0@{k}' for k in (0, 1) for slot in ('resid_pre', 'mixer_out', 'resid_post')]
  variables = fill.variables(module, X)
  _, acts = sites.forward(module, variables, X, record=('*',))
  np.testing.assert_array_equal(acts['resid_pre.0@1'], acts['resid_post.0@0'])
  with pytest.raises(ValueError, match=r"'mixer_out.0@1' is one of 2 calls of 'block_0', which read the same edit"):
    sites.forward(module, variables, X, edits={'mixer_out.0@1': edits.Skip()})


def test_numbered_modules_stand_in_for_blocks():
  class Unit(nn.Module):
    @nn.compact
    def __call__(self, x):
      return tag(self, 'h', nn.Dense(D)(x))
  assert named(nn.Sequential([Unit(), Unit()]), X) == ['h.0', 'h.1']


# --- what would be lost ---------------------------------------------------------------------------------------------

def test_two_tensors_may_not_claim_one_site():
  def call(self, x):
    x, _ = Cell(name='first')(x)
    return Cell(name='second')(x)[0]
  with pytest.raises(ValueError, match="two tensors claim the site 'before': first and second; give one of them"):
    named(body(call), X)


def test_what_is_sown_without_a_tag_is_no_site():
  def call(self, x):
    self.sow('intermediates', 'aside', x)
    return tag(self, 'kept', x)
  assert named(body(call), X) == ['kept']


def test_a_slot_sown_by_hand_is_refused():
  def call(self, x):
    Cell(name='cell')(x)
    self.sow('intermediates', 'after', x)
    return x
  with pytest.raises(ValueError, match="sows 'after', the name of a site, without passing a tag"):
    named(body(call), X)


def test_a_scan_that_drops_tags_is_refused():
  axes = {**AXES, 'variable_axes': {'params': 0}}
  module = body(lambda self, x: nn.scan(Block, length=2, **axes)(name='block')(x, None)[0])
  with pytest.raises(ValueError, match=r"the tag 'resid_pre' in 'block' left no value: .* 'intermediates': 0"):
    named(module, X)


def test_a_scan_that_drops_edits_is_refused():
  axes = {**AXES, 'variable_axes': {'params': 0, 'intermediates': 0}}
  module = body(lambda self, x: nn.scan(Block, length=2, **axes)(name='block')(x, None)[0])
  variables = fill.variables(module, X)
  assert list(sites.forward(module, variables, X, record=('resid_post.*',))[1]) == ['resid_post.0', 'resid_post.1']
  with pytest.raises(ValueError, match=r"the edit of 'mixer_out' in 'block' was not read: .* 'edits': 0"):
    sites.forward(module, variables, X, edits={'mixer_out.1': edits.Skip()})


def test_a_scan_that_stacks_behind_is_refused():
  axes = {**AXES, 'variable_axes': {'params': 0, 'intermediates': 1}}
  module = body(lambda self, x: nn.scan(Block, length=3, **axes)(name='block')(x, None)[0])
  with pytest.raises(ValueError, match=r'has shape \(2, 4\) and is stacked to \(2, 3, 4\); stack it in front'):
    named(module, X)


def test_a_reused_trace_is_refused():
  def call(self, x):
    block = nn.jit(Block)
    for i in range(2):
      x, _ = block(name=f'block_{i}')(x)
    return x
  with pytest.raises(ValueError, match="'block_1' sows '.*', the name of a site, .* reuses a trace of nn.jit"):
    named(body(call), X)


def test_intermediates_handed_in_are_not_mixed_with_new_ones():
  network = Stack()
  _, state = network.apply(variables_of(network), X, mutable=['intermediates'])
  assert list(sites.sites(network, {**variables_of(network), **state}, X)) == TABLE


# --- names ----------------------------------------------------------------------------------------------------------

NAMES = ['embed', *(f'{slot}.{i}' for i in range(2) for slot in (
    'resid_pre', 'mixer_in', 'q', 'k', 'v', 'attn_scores', 'attn_probs', 'z', 'mixer_raw', 'mixer_out', 'resid_mid',
    'channel_in', 'channel_pre', 'channel_gate', 'channel_act', 'channel_raw', 'channel_out', 'resid_post')), 'logits']
POST = ['mixer_out.0', 'z.0', 'mixer_sum.0', 'resid_mid.0', 'channel_out.0', 'channel_sum.0', 'resid_post.0']
PLAIN = ['resid_pre.0', 'mixer_out.0', 'resid_post.0']           # a network without attention


@pytest.mark.parametrize('pattern, chosen', [
    ('embed', ['embed']),
    ('resid_post.*', ['resid_post.0', 'resid_post.1']),
    ('resid_post.-1', ['resid_post.1']),
    ('resid_p*.-2', ['resid_pre.0', 'resid_post.0']),
    ('*_out.[1-9]', ['mixer_out.1', 'channel_out.1']),
    (('logits', 'embed', 'embed'), ['embed', 'logits']),
    ('attn_out.1', ['mixer_out.1']),
    ('attn_*.0', ['mixer_in.0', 'attn_scores.0', 'attn_probs.0', 'mixer_raw.0', 'mixer_out.0']),
    ('mlp_out.-1', ['channel_out.1']),
    ('mlp_act.0', ['channel_act.0']),
    ('blocks.1.hook_resid_post', ['resid_post.1']),
    ('blocks.-1.attn.hook_pattern', ['attn_probs.1']),
    ('blocks.*.hook_attn_out', ['mixer_out.0', 'mixer_out.1']),
    ('blocks.0.mlp.hook_post', ['channel_act.0']),
    ('blocks.0.mlp.hook_pre_linear', ['channel_gate.0']),
    ('attn_out_post.1', ['mixer_out.1']),
    ('value.0', ['v.0']),
    ('*_post.0', ['resid_post.0']),                                # aliases are not hit by accident
])
def test_what_a_pattern_selects(pattern, chosen):
  assert list(sites.select(pattern, NAMES)) == chosen


def test_after_the_sum_or_after_the_norm():
  assert sites.select('blocks.0.hook_resid_mid', POST) == ('mixer_sum.0',)
  assert sites.select('blocks.0.hook_resid_post', POST) == ('channel_sum.0',)
  assert sites.select('blocks.0.hook_normalized_resid_post', POST) == ('resid_post.0',)
  assert sites.select('blocks.0.hook_resid_post', NAMES) == ('resid_post.0',)


def test_a_tag_of_that_name_goes_before_an_alias():
  assert sites.select('attn_out.0', ['attn_out.0', 'mixer_out.0', 'z.0']) == ('attn_out.0',)


@pytest.mark.parametrize('pattern, names, message', [
    ('resid_pst.1', NAMES, r"no site matches 'resid_pst.1'; did you mean 'resid_post.1'.* Valid: attn_probs.0"),
    ('resid_post.2', NAMES, "no site matches 'resid_post.2'"),
    ('resid_post.-3', NAMES, r"there are 2 layers of 'resid_post.\*', so the first is resid_post.-2"),
    ('attn_out.0', PLAIN, "no attention computes that tensor in this network; .* named 'mixer_out.0'"),
    ('blocks.0.hook_attn_out', PLAIN, "no site matches 'blocks.0.hook_attn_out'"),
    ('blocks.0.ln1.hook_normalized', NAMES, "no tensor here has the meaning of 'ln1.hook_normalized'"),
    ('blocks.0.hook_mlp_in', NAMES, "no tensor here has the meaning of 'hook_mlp_in'; did you mean 'hook_mlp_out'"),
    ('blocks.0.hook_normalized_resid_post', NAMES, "no site matches"),
    ('hook_embed', NAMES, "no site matches 'hook_embed'"),
    ('channel_gate.0', PLAIN, "no site matches 'channel_gate.0'"),
])
def test_a_name_that_means_nothing_here_is_refused(pattern, names, message):
  with pytest.raises(ValueError, match=message):
    sites.select(pattern, names)


@pytest.mark.parametrize('where', ('record', 'edits'))
def test_forward_refuses_unknown_sites(where):
  wrong = ('resid_past.1',) if where == 'record' else {'resid_past.1': edits.Skip()}
  with pytest.raises(ValueError, match="no site matches 'resid_past.1'; did you mean 'resid_post.1'"):
    sites.forward(Stack(), variables_of(Stack()), X, **{where: wrong})


def test_only_edits_can_be_planted():
  with pytest.raises(ValueError, match="what is given for 'embed' is not an edit"):
    sites.forward(Stack(), variables_of(Stack()), X, edits={'embed': 0.0})


# --- modules without tags -------------------------------------------------------------------------------------------

class UntaggedLayer(nn.Module):
  @nn.compact
  def __call__(self, x, _=None):
    return nn.relu(nn.Dense(D, name='map')(nn.LayerNorm(name='norm')(x))), None


class Untagged(nn.Module):
  scan: bool = False

  @nn.compact
  def __call__(self, x):
    if self.scan:
      x, _ = nn.scan(UntaggedLayer, length=L, **AXES)(name='part')(x, None)
    shared = nn.Dense(D)
    return shared(shared(x)), {'aside': x}


def test_module_outputs_are_addressed_by_path():
  module = Untagged()
  variables = fill.variables(module, X)
  assert named(module, X) == ['Dense_0@0', 'Dense_0@1', 'output:0', 'output:1']
  (out, aside), acts = sites.forward(module, variables, X, record=('*',))
  np.testing.assert_array_equal(acts['Dense_0@1'], out)
  np.testing.assert_array_equal(acts['output:1'], aside['aside'])
  np.testing.assert_allclose(acts['Dense_0@0'], X @ variables['params']['Dense_0']['kernel']
                             + variables['params']['Dense_0']['bias'][None], atol=1e-6)


def test_scanned_modules_without_tags_have_a_row_per_layer():
  module = Untagged(scan=True)
  variables = fill.variables(module, X)
  _, acts = sites.forward(module, variables, X, record=('part*',))
  assert list(acts) == [f'{part}.{i}' for i in range(L) for part in ('part/norm', 'part/map', 'part')]
  params = jax.tree.map(np.float64, variables['params']['part'])
  for i in range(L):
    expected = np.float64(acts[f'part/norm.{i}']) @ params['map']['kernel'][i] + params['map']['bias'][i]
    np.testing.assert_allclose(acts[f'part/map.{i}'], expected, atol=1e-5)
    np.testing.assert_allclose(acts[f'part.{i}'], np.maximum(expected, 0), atol=1e-5)


def test_module_outputs_of_a_tagged_network_are_there_when_asked_for():
  network, variables = Stack(scan=True), variables_of(Stack(scan=True))
  assert 'block/map.1' not in sites.sites(network, variables, X)
  assert 'block/map.1' in sites.sites(network, variables, X, modules=True)
  _, acts = sites.forward(network, variables, X, record=('block/map.*', 'mixer_out.*'))
  for layer in range(L):
    np.testing.assert_array_equal(acts[f'block/map.{layer}'], acts[f'mixer_out.{layer}'])


def test_module_outputs_cannot_be_edited():
  module = Untagged()
  with pytest.raises(ValueError, match=r"'Dense_0@0' is the output of a module without a tag .* x = tag\(self"):
    sites.forward(module, fill.variables(module, X), X, edits={'Dense_0@0': edits.Skip()})


def test_a_module_of_another_library_is_measured_as_it_is():
  module = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(2)])
  assert named(module, X) == ['layers_0', 'layers_2', 'output']


# --- cost -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('network', (Stack(), Stack(scan=True)), ids=('unrolled', 'scanned'))
def test_other_values_do_not_trace_again(network):
  variables = variables_of(network)
  def run(seed, **extra):
    e = {'mixer_out.1': edits.Add(delta=fill.normal(seed, D)), 'embed': edits.Scale(factor=1.0 + seed)}
    sites.forward(network, jax.tree.map(lambda p: p + seed, variables), X + seed, record=('logits',), edits=e, **extra)
  run(0)
  traced.clear()
  run(1)
  run(2)
  sites.forward(Stack(scan=network.scan), variables, X, record=('logits',),
                edits={'mixer_out.1': edits.Add(delta=jnp.zeros(D)), 'embed': edits.Scale(factor=3.0)})
  assert not traced                                  # an equal network is the same network
  sites.forward(network, variables, X, record=('embed',))
  assert traced


def test_a_network_with_unhashable_fields_is_compiled_once():
  class Listed(nn.Module):
    widths: list
    @nn.compact
    def __call__(self, x):
      traced.append('listed')
      return tag(self, 'h', nn.Dense(int(self.widths[0]), name='map')(x))
  network = Listed(np.array([3, 4]))
  variables = fill.variables(network, X)
  sites.forward(network, variables, X, record='h')
  traced.clear()
  _, acts = sites.forward(network, variables, X + 1, record='h')
  assert not traced and acts['h'].shape == (2, 3)


def instructions(function, *args):
  text = jax.jit(function).lower(*args).compile().as_text()
  return len(re.findall(r'^\s+(?:ROOT )?%?\S+ = ', text, re.MULTILINE))


@pytest.mark.parametrize('scan', (False, True), ids=('unrolled', 'scanned'))
def test_sites_that_are_not_recorded_cost_nothing(scan):
  network = net.Net(outputs=3, embed=dict(name='patches'), mixer=dict(name='attention', heads=2), width=D,
                    channel=dict(name='mlp'), head=dict(name='classify'), depth=2, stack=dict(name='plain', scan=scan))
  images = fill.normal(1, 2, 4, 4, 1)
  variables = fill.variables(network, images)
  plain = instructions(lambda v, x: network.apply(v, x), variables, images)
  assert instructions(lambda v, x: sites.forward(network, v, x)[0], variables, images) == plain


def test_settings_of_the_network_pass_through():
  class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return tag(self, 'h', nn.Dropout(0.5, deterministic=not train)(x))
    def double(self, x):
      return tag(self, 'twice', 2 * x)
  module, ones = Dropped(), jnp.ones((4, 50))
  quiet = sites.forward(module, {}, ones, record='h')[1]['h']
  np.testing.assert_array_equal(quiet, 1)
  draw = lambda k: sites.forward(module, {}, ones, train=True, rngs={'dropout': jax.random.key(k)}, record='h')[1]['h']
  first, again, other = draw(0), draw(0), draw(1)
  np.testing.assert_array_equal(first, again)
  assert set(np.unique(first)) == {0.0, 2.0} and (first != other).any()
  np.testing.assert_array_equal(sites.forward(module, {}, ones, method='double', record='twice')[1]['twice'], 2)


# --- not-a-number ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('network', (Stack(), Stack(scan=True)), ids=('unrolled', 'scanned'))
def test_not_a_number_stays_where_it_is_put(network):
  variables = variables_of(network)
  nan = jnp.full(D, jnp.nan)
  for edit in (edits.Replace(value=nan), edits.Scale(factor=nan), edits.Project(direction=nan)):
    _, acts = sites.forward(network, variables, X, record=('*',),
                            edits={'resid_post.1': edit, 'resid_pre.2': edits.Replace(value=1.0)})
    broken = [n for n, a in acts.items() if not np.isfinite(a).all()]
    assert broken == ['resid_post.1']
  gradients = edits.site_gradients(lambda y: y.sum(), network, variables, X, record=('resid_post.*',))
  cut = jax.grad(lambda x: sites.forward(network, variables, x, edits={
      'resid_post.1': edits.Scale(factor=jnp.nan), 'resid_pre.2': edits.Replace(value=1.0)})[0].sum())(X)
  assert np.isfinite(gradients['resid_post.0']).all() and cut.shape == X.shape

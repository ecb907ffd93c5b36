"""Laws of all edits (every subclass of `Edit` in `aspects.edits`, without a list), sweeps and gradients at sites."""
import inspect
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import edits
from aspects import net
from aspects import sites
from tests import fill

EDITS = [kind(**fields) for kind in vars(edits).values()
         if inspect.isclass(kind) and issubclass(kind, edits.Edit) and kind is not edits.Edit
         for fields in kind.examples]
each = pytest.mark.parametrize('edit', EDITS, ids=lambda e: type(e).__name__)
D, L = 4, 3
ODD = jnp.asarray([[-0.0, 0.0, jnp.nan, 1.0], [jnp.inf, -jnp.inf, 1e-40, -2.0]], jnp.float32)
X = fill.normal(1, 2, 3, D)                          # [B, T, D]
SPEC = dict(outputs=2, embed=dict(name='vector'), mixer=None, channel=dict(name='mlp', ratio=1.0), depth=L, width=D,
            head=dict(name='classify'))
FLAT = X[:, 0]
traced = []


def scanned(scan):
  """(a residual MLP of `L` blocks, its variables): the same numbers in both layouts."""
  variables = fill.variables(net.Net(**SPEC), FLAT)
  params = net.to_scanned(variables['params']) if scan else variables['params']
  return net.Net(**SPEC, stack=dict(name='plain', scan=scan)), {'params': params}


LAYOUTS = {'unrolled': scanned(False), 'scanned': scanned(True)}
each_layout = pytest.mark.parametrize('layout', LAYOUTS)


def bits(x):
  return np.asarray(x).view(np.uint16 if x.dtype == jnp.bfloat16 else np.uint32)


# --- laws of every edit ---------------------------------------------------------------------------------------------

def test_every_edit_is_covered():
  assert {type(e).__name__ for e in EDITS} >= {'Skip', 'Scale', 'Add', 'Replace', 'Noise', 'Project'}


@each
@pytest.mark.parametrize('dtype', (jnp.float32, jnp.bfloat16))
def test_off_is_bitwise_the_identity(edit, dtype):
  x = ODD.astype(dtype)
  for off in (False, np.zeros(D, bool), np.zeros((2, 1), bool)):
    y = edit.replace(on=off)(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(bits(y), bits(x))


@each
def test_on_changes_and_keeps_shape_and_dtype(edit):
  for dtype in (jnp.float32, jnp.bfloat16):
    y = edit(X.astype(dtype))
    assert y.shape == X.shape and y.dtype == dtype
    assert np.abs(y.astype(jnp.float32) - X).max() > 0.1


@each
@pytest.mark.parametrize('on', (np.array([True, False, True, False]), np.array([[False], [True], [False]]),
                                np.array([[[True]], [[False]]])), ids=('units', 'positions', 'examples'))
def test_on_selects_units_positions_and_examples(edit, on):
  expected = np.where(np.broadcast_to(on, X.shape), edit(X), X)
  np.testing.assert_array_equal(edit.replace(on=on)(X), expected)


@each
def test_off_keeps_what_it_holds_out_of_the_gradient(edit):
  broken = jax.tree.map(lambda leaf: leaf if jnp.result_type(leaf) in (jnp.bool_, jnp.int32) else jnp.full_like(
      jnp.asarray(leaf, jnp.float32), jnp.nan), edit).replace(on=False)
  np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(jnp.sin(broken(x))))(X), jnp.cos(X))


@each
def test_other_values_do_not_trace_again(edit):
  def run(edit, x):
    traced.append(type(edit))
    return edit(x)
  compiled = jax.jit(run)
  compiled(edit, X)
  traced.clear()
  other = jax.tree.map(lambda leaf: leaf if isinstance(leaf, bool) else leaf + 1, edit)
  np.testing.assert_allclose(compiled(other.replace(on=False), X + 1), X + 1, atol=0)
  np.testing.assert_allclose(compiled(other, X), other(X), atol=1e-6)
  assert not traced


@each
def test_a_sweep_is_a_loop(edit):
  several = [jax.tree.map(lambda leaf: leaf if isinstance(leaf, bool) else leaf * k + k, edit).replace(on=k != 1)
             for k in range(3)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *several)
  one_by_one = np.stack([e(X) for e in several])
  np.testing.assert_allclose(jax.vmap(lambda e: e(X))(stacked), one_by_one, atol=1e-6)
  for size in (1, 2):
    swept = jax.jit(lambda e: edits.sweep(lambda at: at['here'](X), {'here': e}, batch_size=size))(stacked)
    np.testing.assert_allclose(swept, one_by_one, atol=1e-6)


def test_scanned_is_unrolled():
  planted = {f'{slot}.{layer}': edit for edit, (layer, slot) in zip(EDITS, itertools.product(
      range(L), ('resid_pre', 'channel_out', 'resid_post')), strict=False)}
  assert len(planted) == len(EDITS)
  planted |= {'channel_raw.*': edits.Scale(factor=np.arange(4.0), on=np.array([[[True]], [[False]]])),
              'channel_in.-1': edits.Add(delta=1.0, on=np.array([True, False, True, True]))}
  results = [sites.forward(*LAYOUTS[layout], FLAT, record=('*',), edits=planted) for layout in LAYOUTS]
  assert list(results[0][1]) == list(results[1][1])
  for name in results[0][1]:
    np.testing.assert_allclose(results[0][1][name], results[1][1][name], atol=1e-5, err_msg=name)


NAMES = sites.sites(*LAYOUTS['unrolled'], FLAT)


# --- single edits ---------------------------------------------------------------------------------------------------

def test_what_each_does():
  x = np.asarray(X, np.float64)
  np.testing.assert_array_equal(edits.Skip()(X), 0)
  np.testing.assert_array_equal(edits.Scale(factor=np.array([1.0, 2.0, 0.0, -1.0]))(X), np.asarray(X) * [1, 2, 0, -1])
  np.testing.assert_array_equal(edits.Add(delta=2.5)(X), X + 2.5)
  np.testing.assert_array_equal(edits.Replace(value=np.arange(3.0)[:, None])(X)[0], [[0] * 4, [1] * 4, [2] * 4])
  direction = np.array([1.0, -1.0, 2.0, 0.0])
  left = np.float64(edits.Project(direction=7 * direction)(X))
  np.testing.assert_allclose(left @ direction, 0, atol=1e-6)
  np.testing.assert_allclose(left, x - np.einsum('btd,d,e->bte', x, direction, direction) / 6, atol=1e-6)


def test_projecting_along_nothing_does_nothing():
  np.testing.assert_array_equal(edits.Project(direction=np.zeros(D))(X), X)
  assert np.isfinite(jax.grad(lambda d: edits.Project(direction=d)(X).sum())(jnp.zeros(D))).all()


def test_noise_is_drawn_by_its_key():
  ones = jnp.ones((100, 50))
  first, again, other = (edits.Noise(key=jax.random.key(k), scale=3.0)(ones) for k in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  np.testing.assert_array_equal(first, edits.Noise(key=0, scale=3.0)(ones))            # a seed will do
  assert (first != other).mean() > 0.99
  assert abs(first.mean() - 1) < 0.2 and abs(first.std() - 3) < 0.1
  with pytest.raises(ValueError, match='Noise needs a key'):
    edits.Noise()(ones)


def test_an_edit_without_a_change_says_so():
  with pytest.raises(TypeError, match='Edit does not say what it changes; define change'):
    edits.Edit()(X)


def test_a_value_that_does_not_fit_is_refused():
  wide, tall, three = np.ones(D + 1), np.ones((5, 3, D)), np.ones(3, bool)
  for edit in (edits.Add(delta=wide), edits.Replace(value=tall), edits.Skip(on=three)):
    with pytest.raises(ValueError, match='(?i)broadcast'):
      edit(X)


# --- edits at sites -------------------------------------------------------------------------------------------------

@each_layout
def test_several_edits_of_one_site_apply_in_order(layout):
  run = lambda e: sites.forward(*LAYOUTS[layout], FLAT, record=('resid_pre.*',), edits=e)[1]
  add, twice = edits.Add(delta=1.0), edits.Scale(factor=2.0)
  clean = run({})['resid_pre.1']
  np.testing.assert_allclose(run({'resid_pre.1': edits.Chain((add, twice))})['resid_pre.1'], (clean + 1) * 2, atol=1e-6)
  np.testing.assert_allclose(run({'resid_pre.1': edits.Chain((twice, add))})['resid_pre.1'], clean * 2 + 1, atol=1e-6)
  np.testing.assert_allclose(run({'resid_pre.1': twice, 'blocks.1.hook_resid_pre': add})['resid_pre.1'],
                             run({'resid_pre.1': twice})['resid_pre.1'] + 1, atol=1e-6)


@each_layout
def test_different_edits_at_the_layers_of_one_slot(layout):
  planted = {'channel_out.*': edits.Add(delta=1.0), 'channel_out.0': edits.Skip(),
             'channel_out.2': edits.Scale(factor=np.arange(4.0)), 'channel_out.1': edits.Scale(factor=-1.0)}
  acts = sites.forward(*LAYOUTS[layout], FLAT, record=('channel_out.*', 'channel_raw.*'), edits=planted)[1]
  raw = [np.asarray(acts[f'channel_raw.{i}']) + 1 for i in range(L)]
  for layer, expected in enumerate((0 * raw[0], -raw[1], raw[2] * np.arange(4))):
    np.testing.assert_allclose(acts[f'channel_out.{layer}'], expected, atol=1e-5)


@each_layout
def test_patching_from_one_input_into_another(layout):
  network = LAYOUTS[layout]
  other = fill.normal(5, 2, D)
  record = ('resid_post.*', 'logits')
  ours, theirs = (sites.forward(*network, x, record=record)[1] for x in (FLAT, other))
  state = theirs['resid_post.1']
  patched = sites.forward(*network, FLAT, record=record, edits={'resid_post.1': edits.Replace(value=state)})[1]
  np.testing.assert_array_equal(patched['resid_post.0'], ours['resid_post.0'])
  np.testing.assert_allclose(patched['logits'], theirs['logits'], atol=1e-6)    # the whole state: the other output
  example = edits.Replace(value=state, on=np.array([[[False]], [[True]]]))
  logits = sites.forward(*network, FLAT, edits={'resid_post.1': example})[0]
  np.testing.assert_allclose(logits, np.stack([ours['logits'][0], theirs['logits'][1]]), atol=1e-6)
  unit = edits.Replace(value=state, on=np.arange(D) == 2)
  acts = sites.forward(*network, FLAT, record='resid_post.1', edits={'resid_post.1': unit})[1]
  expected = ours['resid_post.1'].at[..., 2].set(state[..., 2])
  np.testing.assert_array_equal(acts['resid_post.1'], expected)


def test_patching_one_position_moves_what_later_tokens_read():
  network = net.Net(outputs=5, embed=dict(name='tokens', vocab=9, length=6), head=dict(name='unembed'), width=D,
                    mixer=dict(name='attention', heads=2, causal=True), channel=dict(name='mlp'), depth=2)
  text = jnp.asarray([[1, 2, 3, 4, 5]])
  variables = fill.variables(network, text)
  theirs = sites.forward(network, variables, text + 1, record='resid_post.0')[1]['resid_post.0']
  at_two = edits.Replace(value=theirs, on=(np.arange(5) == 2)[:, None])
  plain, patched = (sites.forward(network, variables, text, edits=e)[0] for e in ({}, {'resid_post.0': at_two}))
  np.testing.assert_array_equal(plain[:, :2], patched[:, :2])
  assert (np.abs(plain - patched)[0, 2:].max(-1) > 1e-4).all()


@each_layout
def test_a_sweep_over_layers_is_a_loop_over_layers(layout):
  network, variables = LAYOUTS[layout]
  groups = [('channel_out.0',), ('channel_out.1',), ('channel_out.0', 'channel_out.2')]
  run = lambda e: sites.forward(network, variables, FLAT, record='resid_post.*', edits=e)
  loop = [run({name: edits.Skip() for name in group}) for group in groups]
  for size in (1, 3):
    swept = jax.jit(lambda e: edits.sweep(run, e, batch_size=size))(edits.skip_each(groups))
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, np.stack(b), atol=2e-5), swept, *loop)


def test_an_off_edit_in_a_network_changes_nothing():
  for network in LAYOUTS.values():
    plain, off = (sites.forward(*network, FLAT, record=('*',), edits=e)[1] for e in (
        {}, {'resid_*.*': edits.Scale(factor=jnp.nan, on=False), 'channel_out.1': edits.Noise(key=0, on=False)}))
    for name in plain:
      np.testing.assert_array_equal(bits(plain[name]), bits(off[name]), err_msg=name)


# --- gradients at sites ---------------------------------------------------------------------------------------------

class Linear(nn.Module):
  """resid_pre.l -> resid_post.l = (1 + w_l) * resid_pre.l, so that all gradients are products."""
  scan: bool = False

  @nn.compact
  def __call__(self, x):
    def block(self, x, w):
      x = sites.tag(self, 'resid_pre', x)
      y = sites.tag(self, 'channel_out', w * x)
      return sites.tag(self, 'resid_post', x + y), None
    weights = jnp.asarray([1.0, 2.0, -3.0])
    if self.scan:
      return nn.scan(block, length=L, variable_axes={'intermediates': 0, 'edits': 0})(self, x, weights)[0]
    for i in range(L):
      x, _ = Numbered(name=f'block_{i}')(x, weights[i])
    return x


class Numbered(nn.Module):
  @nn.compact
  def __call__(self, x, w):
    x = sites.tag(self, 'resid_pre', x)
    y = sites.tag(self, 'channel_out', w * x)
    return sites.tag(self, 'resid_post', x + y), None


@pytest.mark.parametrize('scan', (False, True), ids=('unrolled', 'scanned'))
def test_gradients_of_a_linear_chain_are_products(scan):
  x = jnp.asarray([2.0, -1.0])
  gradients = edits.site_gradients(lambda y: 0.5 * jnp.sum(y ** 2), Linear(scan), {}, x, record=('*',))
  gains = [2.0, 3.0, -2.0]
  end = np.prod(gains) * np.asarray(x)
  assert list(gradients) == [f'{slot}.{i}' for i in range(L) for slot in ('resid_pre', 'channel_out', 'resid_post')]
  for i in range(L):
    np.testing.assert_allclose(gradients[f'resid_pre.{i}'], end * np.prod(gains[i:]), rtol=1e-6)
    np.testing.assert_allclose(gradients[f'channel_out.{i}'], end * np.prod(gains[i + 1:]), rtol=1e-6)
    np.testing.assert_allclose(gradients[f'resid_post.{i}'], end * np.prod(gains[i + 1:]), rtol=1e-6)


@each_layout
def test_gradients_are_finite_differences(layout):
  network, variables = LAYOUTS[layout]
  loss = lambda y: jnp.sum(jnp.sin(y))
  gradients = edits.site_gradients(loss, network, variables, FLAT, record=('embed', 'channel_out.1'))
  for seed, (name, gradient) in enumerate(gradients.items()):
    assert gradient.shape == NAMES[name].shape
    way = fill.normal(seed, *gradient.shape)
    ends = [float(loss(sites.forward(network, variables, FLAT, edits={name: edits.Add(delta=step * way)})[0]))
            for step in (-1e-2, 1e-2)]
    np.testing.assert_allclose(float((gradient * way).sum()), (ends[1] - ends[0]) / 2e-2, rtol=2e-2, atol=2e-3)


def test_the_gradient_at_the_last_site_is_that_of_the_loss():
  gradients = edits.site_gradients(lambda y: jnp.sum(y ** 2), *LAYOUTS['scanned'], FLAT, record='logits')
  np.testing.assert_allclose(gradients['logits'], 2 * sites.forward(*LAYOUTS['scanned'], FLAT)[0], atol=1e-6)

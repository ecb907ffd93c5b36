"""The analysis loop: statistics are shared, programs compile once, own modules are measured, mistakes are named."""
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import ArraySource, Stream, measure_arrays, measure_network
from aspects import edits
from aspects import measure as measure_lib
from aspects import plugin
from aspects import sites
from aspects.correlations.cka import Cka
from aspects.net import Net
from tests import fill


class Step(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return nn.tanh(nn.Dense(6, name='inner')(x)), None


class Own(nn.Module):
  """No tag anywhere; the steps are scanned."""

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(6, name='first')(x)
    scanned = nn.scan(Step, variable_axes={'params': 0, 'intermediates': 0}, split_rngs={'params': True}, length=3)
    return nn.Dense(2, name='last')(scanned(name='step')(x, None)[0])


def stream(n=40, size=16):
  return Stream(ArraySource(input=np.asarray(fill.normal(3, n, 5)), label=np.arange(n) % 2), size)


def test_an_own_scanned_module_is_measured_by_path():
  net = Own()
  variables = fill.variables(net, jnp.zeros((1, 5)))
  found = measure_network(net, variables, stream(), Cka(('first', 'step/inner.*', 'last')))
  x = stream().source.arrays['input']
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables['params'])
  acts = {'first': x @ p['first']['kernel'] + p['first']['bias']}
  h = acts['first']
  for i in range(3):
    acts[f'step/inner.{i}'] = h @ p['step']['inner']['kernel'][i] + p['step']['inner']['bias'][i]
    h = np.tanh(acts[f'step/inner.{i}'])
  acts['last'] = h @ p['last']['kernel'] + p['last']['bias']
  assert list(found.site.values) == list(acts)
  direct = measure_arrays(Cka(('*',)), acts)
  np.testing.assert_allclose(found.cka_linear_song, direct.cka_linear_song, atol=1e-5)


def small_net():
  net = Net(outputs=2, embed=dict(name='vector'), head=dict(name='classify'), channel=dict(name='mlp', ratio=1.0),
            depth=2, width=4)
  return net, fill.variables(net, jnp.zeros((1, 5)))


def test_equal_statistics_are_computed_once():
  net, variables = small_net()
  program = measure_lib.bind(net, variables, stream().batch(0), {'a': Cka(), 'b': Cka(), 'c': Cka(('embed',))})
  assert len(program.statistics) == 2
  assert program.wiring['a'] == program.wiring['b'] != program.wiring['c']


def test_seeds_are_a_leading_axis_and_equal_single_analyses():
  net, a = small_net()
  b = fill.variables(net, jnp.zeros((1, 5)), seed=7)
  program = measure_lib.bind(net, a, stream().batch(0), {'cka': Cka()})
  both = measure_lib.analyse(program, jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b), stream().batch, 3, seeds=2)
  for s, variables in enumerate((a, b)):
    one = measure_lib.analyse(program, variables, stream().batch, 3)['cka']
    np.testing.assert_allclose(both['cka'].isel(seed=s).cka_linear_gretton, one.cka_linear_gretton, rtol=1e-6)


def test_several_analyses_compile_once():
  net, variables = small_net()
  traces = []
  class Counted(Cka):
    def needs(self, specs):
      return super().needs(specs)
  program = measure_lib.bind(net, variables, stream().batch(0), {'cka': Counted()})
  update = program.statistics[0].update
  object.__setattr__(program.statistics[0], 'update', lambda *a: (traces.append(1), update(*a))[1])
  for _ in range(3):
    measure_lib.analyse(program, variables, stream().batch, 3)
  assert len(traces) == 1


def test_an_analysis_goes_on_from_its_progress():
  net, variables = small_net()
  program = measure_lib.bind(net, variables, stream().batch(0), {'cka': Cka()})
  kept = []
  def stop_after_two(progress):
    kept.append(jax.device_get(progress))
    return progress.step == 2
  assert measure_lib.analyse(program, variables, stream().batch, 3, watch=stop_after_two) == {}
  asked = []
  def batches(step):
    asked.append(step)
    return stream().batch(step)
  found = measure_lib.analyse(program, variables, batches, 3, start=kept[-1])
  assert asked == [2]
  whole = measure_lib.analyse(program, variables, stream().batch, 3)
  np.testing.assert_array_equal(found['cka'].cka_linear_song, whole['cka'].cka_linear_song)


def test_labels_of_arrays_must_fit():
  with pytest.raises(ValueError, match='must have one length'):
    measure_arrays(Cka(('*',)), {'a': np.zeros((5, 2)), 'b': np.zeros((6, 2))})


def test_a_wrong_site_names_the_measure():
  net, variables = small_net()
  with pytest.raises(ValueError, match="measure 'cka': no site matches 'resid_pst.0'; did you mean 'resid_post.0'"):
    measure_lib.bind(net, variables, stream().batch(0), {'cka': Cka(('resid_pst.0',))})


# --- several networks ---------------------------------------------------------------------------------------------

def two_networks():
  """A three-block and a two-block network with variables, and a stream of images for both."""
  x = np.random.default_rng(0).normal(size=(24, 8, 8, 1)).astype(np.float32)
  parts = dict(outputs=3, embed=dict(name='patches', size=4), head=dict(name='classify'), width=6,
               channel=dict(name='mlp', act='relu', ratio=2.0))
  nets = {'deep': Net(depth=3, **parts), 'shallow': Net(depth=2, **parts)}
  return nets, {n: fill.variables(net, x[:1]) for n, net in nets.items()}, x


def test_two_networks_of_different_depth_are_compared_in_one_pass():
  nets, variables, x = two_networks()
  stream = Stream(ArraySource(input=x, label=np.zeros(24, np.int32)), 10)
  measure = plugin.build('correlations', dict(name='cka', sites=('resid_post.*',)))
  found = measure_lib.measure_network(nets, variables, stream, measure)
  acts = {f'{n}:{s}': v for n, net in nets.items()
          for s, v in sites.forward(net, variables[n], x, record=('resid_post.*',))[1].items()}
  direct = measure_lib.measure_arrays(measure, acts)
  assert list(found.site.values) == ['deep:resid_post.0', 'deep:resid_post.1', 'deep:resid_post.2',
                                     'shallow:resid_post.0', 'shallow:resid_post.1'] == list(direct.site.values)
  np.testing.assert_allclose(found.cka_linear_song, direct.cka_linear_song, atol=1e-5)
  grid = measure_lib.between(found.cka_linear_song)
  assert grid.dims == ('network', 'site', 'other_network', 'other') and grid.shape == (2, 3, 2, 3)
  block = grid.sel(network='deep', other_network='shallow')
  np.testing.assert_array_equal(block.values[:, :2], found.cka_linear_song.values[:3, 3:])
  assert np.isnan(block.sel(other='resid_post.2')).all()


def test_networks_of_one_kind_share_a_program_and_keep_their_values():
  nets, variables, x = two_networks()
  other = jax.tree.map(lambda v: v * 1.5, variables['deep'])
  stream = Stream(ArraySource(input=x, label=np.zeros(24, np.int32)), 12)
  measure = plugin.build('correlations', dict(name='cka', sites=('b:resid_post.-1', 'a:*_post.0')))
  found = measure_lib.measure_network({'a': nets['deep'], 'b': nets['deep']}, {'a': variables['deep'], 'b': other},
                                      stream, measure)
  assert list(found.site.values) == ['a:resid_post.0', 'b:resid_post.2']
  acts = {'a:resid_post.0': sites.forward(nets['deep'], variables['deep'], x, record=('resid_post.0',))[1],
          'b:resid_post.2': sites.forward(nets['deep'], other, x, record=('resid_post.2',))[1]}
  direct = measure_lib.measure_arrays(plugin.build('correlations', dict(name='cka', sites=('*',))),
                                      {n: next(iter(a.values())) for n, a in acts.items()})
  np.testing.assert_allclose(found.cka_linear_song, direct.cka_linear_song, atol=1e-5)


def test_what_several_networks_refuse():
  nets, variables, x = two_networks()
  stream = Stream(ArraySource(input=x, label=np.zeros(24, np.int32)), 12)
  ask = lambda nets, variables, **fields: measure_lib.measure_network(
      nets, variables, stream, plugin.build('correlations', dict(name='cka', **fields)))
  with pytest.raises(ValueError, match="no network is called 'wide'; there are deep, shallow"):
    ask(nets, variables, sites=('wide:resid_post.*',))
  with pytest.raises(ValueError, match="no site matches 'resid_post.7'"):
    ask(nets, variables, sites=('resid_post.7',))
  with pytest.raises(ValueError, match='must have the same names, without a colon'):
    ask(nets, {'deep': variables['deep']})
  with pytest.raises(ValueError, match="'resid_post.0' is of one network"):
    measure_lib.between(ask(nets['deep'], variables['deep']).cka_linear_song)
  with pytest.raises(ValueError, match='cannot be edited together'):
    measure_lib._recorded(nets, variables, stream.batch(0), (), {'deep:mixer_out.0': edits.Skip()}, {})

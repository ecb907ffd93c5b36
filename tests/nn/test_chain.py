"""A block without skip connections: the sublayers composed by hand."""
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import net
from aspects import plugin
from aspects import sites
from tests import fill

X = fill.normal(1, 2, 4, 8)
INPUTS = (X, jnp.asarray(1), None, jnp.arange(4))
MIXER, CHANNEL = {'name': 'attention', 'heads': 2}, {'name': 'mlp', 'ratio': 1.0}


def run(mixer=MIXER, channel=CHANNEL, branch=None):
  block = net.Block(mixer=mixer, channel=channel, norm={'name': 'layer'}, placement={'name': 'aspects.nn.chain:Chain'},
                    branch=branch, depth=4)
  variables = fill.variables(block, *INPUTS)
  return variables['params'], *sites.record_sites(block, variables, INPUTS, ('*',), {}, {})


@pytest.mark.parametrize('branch', [None, {'name': 'layer_scale'}])
def test_is_the_composition_of_norms_and_sublayers(branch):
  params, out, acts = run(branch=branch)
  x = X
  for slot, family, spec in (('mixer', 'mixers', MIXER), ('channel', 'channels', CHANNEL)):
    h = plugin.build('norms', {'name': 'layer'}).apply({'params': params['residual'][f'{slot}_norm']}, x, 0)
    np.testing.assert_allclose(acts[f'{slot}_in'], h, atol=1e-6)
    x = plugin.build(family, spec).apply({'params': params[slot]}, h)
    np.testing.assert_allclose(acts[f'{slot}_raw'], x, atol=1e-5)
    x = x * np.asarray(params['residual'][f'{slot}_branch']['gain'])[None, None] if branch else x
    np.testing.assert_allclose(acts['resid_mid' if slot == 'mixer' else 'resid_post'], x, atol=1e-5)
  np.testing.assert_array_equal(out, acts['resid_post'])


def test_nothing_is_added_to_the_stream():
  """A sublayer that gives zeros leaves zeros, where a residual block would leave its input; no site says otherwise."""
  _, out, acts = run(mixer={'name': 'pool'}, channel=None)
  assert not [s for s in acts if s.endswith('_out')] and 'resid_mid' not in acts
  np.testing.assert_array_equal(acts['mixer_raw'], out)
  constant = net.Block(mixer={'name': 'pool'}, channel=None, norm={'name': 'layer'}, branch=None, depth=1,
                       placement={'name': 'aspects.nn.chain:Chain'})
  same = jnp.broadcast_to(X[:, :1], X.shape)
  y = constant.apply(fill.variables(constant, *INPUTS), same, *INPUTS[1:])
  np.testing.assert_allclose(y, 0, atol=1e-6)

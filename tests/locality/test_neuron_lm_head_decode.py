"""Neurons decoded by the head against products of the weights in float64; clamps against a network changed by hand."""
import copy

import jax
import numpy as np
import pytest
import scipy.special

from aspects import measure
from aspects.locality.neuron_lm_head_decode import NeuronLmHeadDecode
from aspects.net import Net
from aspects.net import to_scanned
from configs.locality.neuron_lm_head_decode import get_config
from experiments import neuron_lm_head_decode as experiment
from tests import fill

VOCAB, TOKENS, N = 11, 4, 6


class Stream:
  """Batches of a dict of arrays."""

  def __init__(self, fields, size=3):
    self.fields, self.size = fields, size

  def batch(self, k):
    return {n: v[k * self.size:(k + 1) * self.size] for n, v in self.fields.items()}

  def __len__(self):
    return len(self.fields['weight']) // self.size


def text():
  return {'input': np.random.default_rng(0).integers(0, VOCAB, (N, TOKENS)), 'weight': np.ones(N, np.float32),
          'index': np.arange(N)}


def network(norm='layer', width=8, scan=False, channel='gated_mlp', **head):
  return Net(outputs=VOCAB, depth=2, width=width, embed=dict(name='tokens', vocab=VOCAB, length=TOKENS),
             head=dict(name='unembed', **head), mixer=dict(name='attention', heads=1, causal=True),
             channel=dict(name=channel, ratio=2.0), norm=dict(name=norm), stack=dict(name='plain', scan=scan))


def oracle(params, norm, weight='gate', k=4):
  """{variable: array} from the weights: W_head (gain * w), w centred first for layer norm, and W_head w."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  tied = 'logits_map' not in params.get('head', {})
  head = params['embedder']['token']['embedding'].T if tied else params['head']['logits_map']['kernel']
  out = {}
  for i in range(2):
    rows = params['stage_0'][f'block_{i}']['channel'][weight]['kernel'].T                          # [F, D]
    centred = rows - rows.mean(-1, keepdims=True) if norm == 'layer' else rows
    for suffix, x in (('', centred * params['norm']['affine']['scale']), ('_plain', rows)):
      p = scipy.special.softmax(x @ head, -1)
      order = np.argsort(-p, axis=-1)[:, :k]
      for name, value in (('probability', p.max(-1)), ('entropy', scipy.special.entr(p).sum(-1)), ('token', order),
                          ('token_probability', -np.sort(-p, axis=-1)[:, :k])):
        out.setdefault(name + suffix, []).append(value)
  return {name: np.stack(value) for name, value in out.items()}


@pytest.mark.parametrize('norm, width, channel, head', [
    ('layer', 8, 'gated_mlp', {}), ('rms', 7, 'mlp', {'tied': True, 'soft_cap': 3.0})])
def test_tokens_of_neurons_by_the_weights(norm, width, channel, head):
  """Three examples a batch read eight or seven basis vectors in three turns; the second batch changes nothing."""
  net = network(norm, width, channel=channel, **head)
  variables = fill.variables(net, text()['input'][:1])
  found = measure.measure_network(net, variables, Stream(text()), NeuronLmHeadDecode())
  weight, slot = ('gate', 'channel_gate') if channel == 'gated_mlp' else ('in', 'channel_pre')
  expected = oracle(variables['params'], norm, weight)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
  assert found.site.values.tolist() == [f'{slot}.0', f'{slot}.1']
  assert np.abs(expected['probability'] - expected['probability_plain']).max() > 0.01


def test_scanned_blocks_and_chosen_sites():
  net, fields = network(), text()
  variables = fill.variables(net, fields['input'][:1])
  scanned = {'params': to_scanned(variables['params'])}
  part = NeuronLmHeadDecode(('channel_pre.1',), k=2)
  found = measure.measure_network(network(scan=True), scanned, Stream(fields), part)
  expected = oracle(variables['params'], 'layer', 'pre', 2)
  assert found.site.values.tolist() == ['channel_pre.1'] and found.sizes['place'] == 2
  np.testing.assert_allclose(found.probability, expected['probability'][1:], rtol=2e-4)
  np.testing.assert_array_equal(found.token, expected['token'][1:])


def test_what_is_refused():
  net, batch = network(), Stream(text()).batch(0)
  bound = lambda net, **fields: measure.bind(net, jax.eval_shape(net.init, jax.random.key(0), batch['input']), batch,
                                             {'neurons': NeuronLmHeadDecode(**fields)})
  with pytest.raises(ValueError, match='k is 12 and the network has 11 outputs'):
    bound(net, k=12)
  with pytest.raises(ValueError, match='no layer has neurons'):
    bound(net.clone(channel=None))
  with pytest.raises(ValueError, match='k is 0'):
    NeuronLmHeadDecode(k=0)


# --- the experiment -------------------------------------------------------------------------------------------------

def test_a_clamp_is_a_unit_of_a_constant():
  """What a neuron reads is made constant in the weights: a column of zeros and a bias of the value."""
  net = network(channel='gated_mlp').clone(channel=dict(name='gated_mlp', ratio=2.0, bias=True))
  inputs = text()['input']
  variables = fill.variables(net, inputs[:1])
  units, values = np.array([3, 0, 7]), np.array([2., -1., .5])
  found = experiment.clamped(net, variables, inputs, 'channel_gate.1', units, values, 2)
  log_p = lambda v: scipy.special.log_softmax(np.asarray(net.apply(v, inputs), np.float64), -1)
  for row, unit, value in zip(found, units, values):
    changed = copy.deepcopy(jax.tree.map(np.array, variables))
    gate = changed['params']['stage_0']['block_1']['channel']['gate']
    gate['kernel'][:, unit], gate['bias'][unit] = 0, value
    np.testing.assert_allclose(row, (log_p(changed) - log_p(variables)).mean((0, 1)), atol=2e-6)
  assert np.abs(found).max() > 1e-3


def test_others_are_as_frequent_and_not_the_token():
  frequency = np.array([0, 1000, 5, 900, 1100, 6, 4, 0])
  for seed in range(5):
    rng = np.random.default_rng(seed)
    assert set(experiment.alike(frequency, 1, 2, 2, rng)) == {3, 4}
    assert set(experiment.alike(frequency, 2, 3, 2, rng)) <= {5, 6, 0, 7}


def test_tokens_are_dealt_out_anew():
  """A gain that depends on the token alone has one mean, however tokens are dealt; a diagonal one a share of it."""
  rng = np.random.default_rng(0)
  assert experiment.dealt(np.tile([1., 2., 6.], (3, 1)), rng) == pytest.approx(3)
  assert experiment.dealt(np.eye(50) * 50, rng, 2000) == pytest.approx(1, abs=0.1)


def test_the_claim_asks_for_what_the_experiment_gives():
  config = get_config()
  part = experiment.NeuronLmHeadDecode(**{k: v for k, v in config.procedure.items() if k != 'name'})
  assert part.share == 0.05 and part.strength == 4.0
  for fields, message in (({'share': 0.0}, 'share 0.0 is above 0'), ({'others': 50}, 'others 50 of pool 40')):
    with pytest.raises(ValueError, match=message):
      experiment.NeuronLmHeadDecode(**fields)

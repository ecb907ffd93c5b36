"""Backpropagation against steps computed by hand."""
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import net as net_lib
from aspects import train
from aspects.learning.backprop import Backprop
from aspects.net import Net


class Linear(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(2, name='map')(x)


def batch():
  x = jnp.array([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]])
  return {'input': x, 'label': jnp.array([0, 1, 1]), 'weight': jnp.array([1.0, 1.0, 0.5]), 'index': jnp.arange(3)}


def one_step(rule):
  net = Linear()
  params = net.init(jax.random.key(0), batch()['input'])['params']
  state = rule.init(net, params, batch())
  return params, *rule.step(net, params, state, batch(), jax.random.key(1))


def by_hand(params):
  """The gradient of the weighted mean cross-entropy of a linear map."""
  b = batch()
  x, w = np.asarray(b['input'], np.float64), np.asarray(b['weight'], np.float64)
  logits = x @ np.asarray(params['map']['kernel'], np.float64) + np.asarray(params['map']['bias'], np.float64)
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  error = (p - np.eye(2)[np.asarray(b['label'])]) * (w / w.sum())[:, None]
  return x.T @ error, error.sum(0)


def test_sgd_is_one_gradient_step():
  rule = Backprop(optimizer={'name': 'sgd'}, learning_rate=0.3, schedule='constant', clip=None)
  params, new, _, info = one_step(rule)
  kernel, bias = by_hand(params)
  np.testing.assert_allclose(new['map']['kernel'], params['map']['kernel'] - 0.3 * kernel, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(new['map']['bias'], params['map']['bias'] - 0.3 * bias, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(info['gradient_norm'], np.sqrt((kernel ** 2).sum() + (bias ** 2).sum()), rtol=1e-5)


def test_clipping_bounds_the_step():
  params, new, _, _ = one_step(Backprop(optimizer={'name': 'sgd'}, learning_rate=1.0, schedule='constant', clip=0.01))
  moved = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), params, new)
  np.testing.assert_allclose(np.sqrt(sum((x ** 2).sum() for x in jax.tree.leaves(moved))), 0.01, rtol=1e-4)


def test_decay_takes_kernels_and_leaves_biases():
  plain = Backprop(optimizer={'name': 'adam'}, learning_rate=0.1, schedule='constant')
  decayed = Backprop(optimizer={'name': 'adam'}, learning_rate=0.1, schedule='constant', decay=0.2)
  params, a, _, _ = one_step(plain)
  _, b, _, _ = one_step(decayed)
  np.testing.assert_allclose(a['map']['kernel'] - b['map']['kernel'], 0.1 * 0.2 * params['map']['kernel'], rtol=1e-4,
                             atol=1e-7)
  np.testing.assert_array_equal(a['map']['bias'], b['map']['bias'])


@pytest.mark.parametrize('schedule,end', [('constant', 1.0), ('cosine', 0.0), ('linear', 0.0)])
def test_schedules(schedule, end):
  rate = Backprop(learning_rate=1.0, schedule=schedule, warmup=10, steps=110).rate()
  np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0, 0.5, 1.0], atol=1e-6)
  np.testing.assert_allclose(rate(60), {'constant': 1.0, 'cosine': 0.5, 'linear': 0.5}[schedule], atol=1e-6)
  np.testing.assert_allclose(rate(110), end, atol=1e-6)


@pytest.mark.parametrize('fields,words', [
    (dict(optimizer={'name': 'adamm'}), "no optimiser 'adamm'; did you mean 'adam"),
    (dict(optimizer={'name': 'sgd', 'momentun': 0.9}), "'momentun' here; did you mean 'momentum'"),
    (dict(schedule='cosin'), "did you mean 'cosine'"),
    (dict(objective={'name': 'cross_entrop'}), "did you mean 'cross_entropy'")])
def test_wrong_names_stop_at_build(fields, words):
  with pytest.raises(ValueError, match=words):
    Backprop(**fields)


def test_running_averages_are_carried():
  class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return nn.Dense(2)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
  net, rule = Normed(), Backprop(call={'train': True}, schedule='constant')
  state = train.init(net, rule, (0,), batch())
  state, _ = train.compiled_step(net, rule)(state, jax.tree.map(lambda x: x[None], batch()))
  mean = np.asarray(state.rule.extra['batch_stats']['BatchNorm_0']['mean'][0])
  np.testing.assert_allclose(mean, 0.5 * np.asarray(batch()['input']).mean(0), rtol=1e-5)


def test_scanned_and_unrolled_train_alike():
  """Decay must not mistake the stacked biases of a scanned network for matrices."""
  fields = dict(outputs=2, embed=dict(name='vector'), head=dict(name='classify'), channel=dict(name='mlp', ratio=1.0),
                depth=3, width=4)
  a, b = Net(**fields), Net(**fields, stack=dict(name='plain', scan=True))
  rule = Backprop(decay=0.5, learning_rate=0.05, schedule='constant')
  params = jax.jit(a.init)(jax.random.key(0), batch()['input'])['params']
  ends = []
  for net, p in ((a, params), (b, net_lib.to_scanned(params))):
    state = rule.init(net, p, batch())
    for _ in range(3):
      p, state, _ = jax.jit(lambda p, s: rule.step(net, p, s, batch(), jax.random.key(0)))(p, state)
    ends.append(p)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-6), ends[0],
               net_lib.to_unrolled(ends[1]))


def test_vmapped_seeds_equal_single_runs():
  net, rule = Linear(), Backprop(learning_rate=0.1)
  many = train.init(net, rule, tuple(range(16)), batch())
  stacked = jax.tree.map(lambda x: jnp.stack([x] * 16), batch())
  alone = train.init(net, rule, (11,), batch())
  for _ in range(5):
    many, seen = train.compiled_step(net, rule)(many, stacked)
    alone, one = train.compiled_step(net, rule)(alone, jax.tree.map(lambda x: x[None], batch()))
  np.testing.assert_allclose(seen['nll'][11], one['nll'][0], atol=1e-5)

"""Magnitude pruning against examples by hand, and the rounds of the lottery ticket: what each training starts from."""
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import study
from aspects import train
from aspects.claims import spec
from aspects.claims.rows import Cell
from aspects.compressors.magnitude import Magnitude
from aspects.compressors.random_mask import RandomMask
from aspects.nn import masks
from aspects.nn.perceptron import Perceptron
from configs.compressors import lottery_ticket as config_file
from experiments import lottery_ticket
from experiments.lottery_ticket import LotteryTicket
from tests import fill

CONFIG = pathlib.Path(config_file.__file__)
X = fill.normal(1, 3, 5)
NET = Perceptron(outputs=4, widths=(20, 10))         # kernels of 100, 200 and 40 weights


def evidence(params=None):
  params = fill.variables(NET, X)['params'] if params is None else params
  return {'net': NET, 'params': params, 'inputs': X}


def counts(params):
  return [int(np.count_nonzero(params[name]['kernel'])) for name in ('layer_0', 'layer_1', 'head')]


# --- masks ----------------------------------------------------------------------------------------------------------

def test_the_largest_weights_stay_by_hand():
  net = Perceptron(outputs=2, widths=(2,))
  params = {'layer_0': {'kernel': jnp.array([[1., -4.], [-2., 3.]]), 'bias': jnp.array([.1, .2])},
            'head': {'kernel': jnp.array([[5., -3.], [2., -1.]]), 'bias': jnp.array([.01, .02])}}
  plan = Magnitude().plan({'net': net, 'params': params, 'inputs': jnp.ones((1, 2))}, 0.625)
  # 5 of 8 weights: 2 of the first kernel, which loses a half, and 3 of the head, which loses a quarter.
  found = Magnitude().apply(params, plan)
  np.testing.assert_array_equal(found['layer_0']['kernel'], [[0, -4.], [0, 3.]])
  np.testing.assert_array_equal(found['head']['kernel'], [[5., -3.], [2., 0]])
  np.testing.assert_array_equal(found['layer_0']['bias'], params['layer_0']['bias'])
  assert plan['cost'] == 0.625


@pytest.mark.parametrize('last,expected', [(1.0, [50, 100, 20]), (0.5, [47, 94, 29]), (0.25, [45, 90, 35])])
def test_all_kernels_lose_the_same_share_and_the_last_a_part_of_it(last, expected):
  """p solves 300 (1 - p) + 40 (1 - last p) = 170: with last = 1/2 46.9, 93.8 and 29.4 weights, rounded to 170."""
  p = 170 / (300 + 40 * last)
  np.testing.assert_array_less(np.abs(np.array([100 * (1 - p), 200 * (1 - p), 40 * (1 - last * p)]) - expected), 1)
  found = Magnitude(last=last).apply(evidence()['params'], Magnitude(last=last).plan(evidence(), 0.5))
  assert counts(found) == expected


@pytest.mark.parametrize('compressor', [Magnitude(), RandomMask(seed=3)], ids=lambda c: type(c).__name__)
def test_rounds_follow_each_other_and_nest(compressor):
  """After n rounds of a fifth, 0.8^n of the weights are left, each of them open in every round before."""
  params, before, quota = evidence()['params'], None, np.array([100., 200., 40.])
  for n in range(1, 9):
    plan = compressor.plan(evidence(params), 0.8 ** n)
    mask = compressor.mask(params, plan)
    params = compressor.apply(params, plan)
    assert sum(counts(params)) == int(340 * 0.8 ** n) == round(340 * plan['cost'])
    lost = (quota.sum() - 340 * 0.8 ** n) / (quota.sum() - quota[2] / 2)
    quota *= 1 - lost * np.array([1, 1, 0.5])
    if before is not None:
      assert all((a | ~b).all() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(mask)))
    before = mask
  np.testing.assert_allclose(counts(params), quota, atol=2)      # without rounding in between


def test_random_masks_have_the_counts_of_magnitude_elsewhere():
  params = evidence()['params']
  a, b = (c.apply(params, c.plan(evidence(), 0.3)) for c in (Magnitude(), RandomMask(seed=1)))
  assert counts(a) == counts(b)
  assert np.count_nonzero((np.asarray(a['layer_1']['kernel']) != 0) & (np.asarray(b['layer_1']['kernel']) != 0)) < 35
  plans = [RandomMask(seed=s).plan(evidence(), 0.3) for s in range(100)]
  drawn = np.mean([masks.unpack(plan['masks']['layer_0/kernel']) for plan in plans], 0)
  share = counts(a)[0] / 100
  assert np.abs(drawn - share).max() < 4.5 * np.sqrt(share * (1 - share) / 100)   # 100 weights, a binomial each


def test_masks_as_text_by_hand():
  mask = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], bool)
  assert masks.pack(mask) == {'shape': [3, 3], 'bits': 'o4A='}       # 10100011 1, padded by zeros: a3 80
  np.testing.assert_array_equal(masks.unpack(masks.pack(mask)), mask)


def test_a_kernel_may_be_emptied_but_no_budget_is_exceeded():
  plan = Magnitude().plan(evidence(), 0.02)
  assert counts(Magnitude().apply(evidence()['params'], plan)) == [0, 0, 6] and plan['cost'] == 6 / 340


def test_a_rate_of_the_output_layer_that_is_no_share_is_refused():
  with pytest.raises(ValueError, match='rate of the output layer is 0'):
    Magnitude(last=0).plan(evidence(), 0.5)


# --- the experiment -------------------------------------------------------------------------------------------------

@functools.cache
def arm():
  config = config_file.get_config('smoke')
  config.seeds, config.first_seed, config.steps = 2, 5000, 4
  config.evaluation.every, config.arms = 2, dict()
  return study.build(config).arms['main']


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  """{arm: (rows, {training: (state it starts from, what it left)})} of all arms, two rounds judged."""
  out, whole = {}, study.run_arm
  for name, fields in (('ticket', {}), ('redrawn', dict(redraw=True)), ('dense', dict(compressor=None)),
                       ('random', dict(compressor=dict(name='random_mask'), learns=False))):
    seen = {}
    def spy(arm, workdir, *args, start, seen=seen, **kwargs):
      start = jax.tree.map(np.array, start)
      seen[workdir.name] = (start, whole(arm, workdir, *args, start=start, **kwargs))
      return seen[workdir.name][1]
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(study, 'run_arm', spy)
      procedure = LotteryTicket(rounds=(1, 3), **fields)
      out[name] = (procedure.rows(Cell(arm().seeds, arm(), tmp_path_factory.mktemp(name), lambda: False)), seen)
  return out


@functools.cache
def origin(seeds=None):
  return jax.device_get(train.init(arm().net, arm().rule, seeds or arm().seeds, arm().probe.example()))


def opened(state):
  return state.rule.optimizer[0].open


def test_every_round_starts_from_the_first_weights_with_a_fresh_optimiser(ran):
  _, seen = ran['ticket']
  assert list(seen) == ['round_0', 'judged_1', 'round_2', 'judged_3']   # what is judged is the next round's training
  for name, (start, _) in seen.items():
    jax.tree.map(lambda m, w, w0: np.testing.assert_array_equal(w, np.where(m, w0, 0)), opened(start), start.params,
                 origin().params)
    fresh = start.rule._replace(optimizer=origin().rule.optimizer)
    jax.tree.map(np.testing.assert_array_equal, fresh.optimizer[1:], start.rule.optimizer[1:])
    np.testing.assert_array_equal(start.seed, arm().seeds)
    assert (start.step == 0).all(), name


def test_a_mask_is_made_of_the_weights_that_the_round_before_left(ran):
  """Each seed by itself: the largest in every kernel, as many as are left after n rounds."""
  _, seen = ran['ticket']
  order = list(seen)
  for before, after in zip(order, order[1:]):
    left = seen[before][1].state.params
    for s in (0, 1):
      for name in ('layer_0', 'layer_1', 'head'):
        mask, w = opened(seen[after][0])[name]['kernel'][s], np.abs(np.asarray(left[name]['kernel'][s]))
        assert 0 < mask.sum() < opened(seen[before][0])[name]['kernel'][s].sum()
        assert w[mask].min() > w[~mask].max()
  kernels = [m['kernel'] for m in opened(seen['judged_3'][0]).values()]
  sizes = np.array([[m[s].sum() for m in kernels] for s in (0, 1)]).sum(1), sum(m[0].size for m in kernels)
  assert (np.abs(sizes[0] - 0.8 ** 3 * sizes[1]) < 3).all()
  assert all(layer['bias'].all() for layer in opened(seen['judged_3'][0]).values())


def test_masked_weights_stay_zero_through_training(ran):
  for name in ('ticket', 'redrawn', 'random'):
    start, done = ran[name][1]['judged_3']
    for layer, masked in opened(start).items():
      w, m = np.asarray(done.state.params[layer]['kernel']), masked['kernel']
      assert (w[~m] == 0).all() and (w[m] != 0).all()


def test_redrawn_networks_have_the_masks_of_the_tickets_and_other_weights(ran):
  ticket, redrawn = ran['ticket'][1], ran['redrawn'][1]
  for name in ('judged_1', 'judged_3'):
    jax.tree.map(np.testing.assert_array_equal, opened(ticket[name][0]), opened(redrawn[name][0]))
    a, b = (each[name][0].params['layer_0']['kernel'] for each in (ticket, redrawn))
    assert not ((a == b) & (a != 0)).any()
  other = origin(tuple(s + 2 ** 31 for s in arm().seeds)).params['layer_0']['kernel']
  assert np.isin(redrawn['judged_3'][0].params['layer_0']['kernel'], np.append(other, 0)).all()


def test_random_masks_need_no_training_and_have_the_density_of_the_tickets(ran):
  ticket, random = ran['ticket'][1], ran['random'][1]
  assert list(random) == ['judged_1', 'judged_3']
  for name in random:
    a, b = (opened(each[name][0]) for each in (ticket, random))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.reshape(2, -1).sum(1), y.reshape(2, -1).sum(1)), a, b)
    assert any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_the_dense_network_is_trained_once_and_stands_for_every_round(ran):
  found, seen = ran['dense']
  assert list(seen) == ['dense'] and all(m.all() for m in jax.tree.leaves(opened(seen['dense'][0])))
  np.testing.assert_array_equal(found.metrics['nll_80'], found.metrics['nll_51'])
  assert ran['ticket'][0].flops == 4 * found.flops > 0                  # four trainings in three rounds


def test_metrics_are_those_of_the_claim_and_read_off_the_curve(ran):
  claim = spec.load(CONFIG, 'smoke')
  for found, seen in ran.values():
    assert not found.diverged.any()
    name = list(seen)[-1]
    curve = seen[name][1].measures['training']
    stop = curve['held_validation_nll'].values.argmin(1)
    np.testing.assert_array_equal(found.metrics['stop_51'], curve.step.values[stop] / 4)
    at_stop = [curve['held_test_nll'].values[s, stop[s]] for s in (0, 1)]
    np.testing.assert_array_equal(found.metrics['stop_nll_51'], at_stop)
    np.testing.assert_array_equal(found.metrics['accuracy_51'], curve['held_test_accuracy'].values[:, -1])
  assert claim.id == 'lottery-ticket/1'


def test_validation_examples_are_taken_from_training_and_from_nothing_else():
  whole, apart = arm(), lottery_ticket.with_validation(arm(), 0.2)
  for s in (0, 1):
    pixels = lambda source: {row.tobytes() for row in source[np.arange(len(source))]['input']}
    train_set, test_set = pixels(whole.streams.streams[s].source), pixels(whole.evaluation.streams[s].source)
    fitted, held = apart.streams.streams[s].source, apart.evaluation.streams[s].source
    rows = held[np.arange(len(held))]
    validation = {row.tobytes() for row in rows['input'][rows['validation'] > 0]}
    assert {row.tobytes() for row in rows['input'][rows['test'] > 0]} == test_set
    assert pixels(fitted) | validation == train_set and len(fitted) == 1437 - 287
    assert not pixels(fitted) & validation and not validation & test_set
    assert ((rows['validation'] > 0) != (rows['test'] > 0)).all()
  a, b = whole.streams.streams[0], apart.streams.streams[0]
  assert (a.seed, a.batch_size, a.repeat) == (b.seed, b.batch_size, b.repeat)


def test_parts_are_means_over_their_examples():
  """One pass over both parts against each part by itself, in numpy float64."""
  apart, state = lottery_ticket.with_validation(arm(), 0.2), origin()
  judge = train.compiled_evaluation(apart.net, apart.config['learning']['objective'], own=True)
  batch = apart.evaluation.batch(0)
  sums = jax.device_get(judge(study.variables(apart, state), batch))
  for s in (0, 1):
    h = np.float64(batch['input'][s]).reshape(len(batch['label'][s]), -1)
    for name in ('layer_0', 'layer_1', 'head'):
      h = h @ np.float64(state.params[name]['kernel'][s]) + np.float64(state.params[name]['bias'][s])
      h = h if name == 'head' else np.maximum(h, 0)
    log_p = h - np.log(np.exp(h).sum(1, keepdims=True))
    nll = -log_p[np.arange(len(h)), batch['label'][s]]
    for part in ('validation', 'test'):
      np.testing.assert_allclose(sums[f'{part}_nll'][s] / sums['weight'][s], nll[batch[part][s] > 0].mean(), rtol=1e-5)


@pytest.mark.parametrize('fields,words', [(dict(keep=1.0), 'keep 1.0'), (dict(rounds=(3, 1)), r'rounds \(3, 1\)'),
                                          (dict(compressor=dict(name='magnitud')), "did you mean 'magnitude'")])
def test_a_wrong_field_of_the_procedure_is_told(fields, words):
  with pytest.raises(ValueError, match=words):
    LotteryTicket(**fields)


@pytest.mark.parametrize('scale', ['claim', 'full'])
def test_every_scale_is_a_valid_claim(scale):
  claim = spec.load(CONFIG, scale)
  assert {'ours', 'baseline', 'control'} <= set(claim.roles.values())

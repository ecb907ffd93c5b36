"""A checkpoint in a config: analysed as it is, trained further, with a new head, beside its untrained control."""
import jax
import numpy as np
import pytest

from aspects import pretrained
from aspects import study
from configs import common
from tests.pretrained import reference as ref


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  config = ref.transformers.GPT2Config(n_embd=16, n_head=2, n_layer=2, vocab_size=256, n_positions=16)
  return ref.save(ref.model('GPT2LMHeadModel', config), tmp_path_factory.mktemp('gpt2'))


def config(directory, steps, **change):
  out = common.base()
  out.seeds, out.steps, out.batch = 2, steps, 4
  out.task = dict(name='stdlib_text', length=12, max_bytes=20_000)
  out.net = dict(pretrained=str(directory))
  out.learning = dict(name='backprop', objective=dict(name='cross_entropy'))
  out.evaluation = dict(split='test', examples=8, batch=8, every=0)
  out.analysis = dict(split='test', examples=16, batch=8, when=(1.0,), call=dict())
  out.measures = dict(cka=dict(name='correlations/cka', sites=('resid_post.*',), pool='tokens'))
  for name, value in change.items():
    out[name] = value                                # whole, not laid over
  return out


def test_it_is_analysed_as_it_is(directory, tmp_path):
  arms = dict(trained=dict(), untrained=dict(net=dict(fresh=True)))
  built = study.build(config(directory, 0, arms=arms))
  tree = study.run(built, tmp_path, progress=False)
  net, variables, *_ = pretrained.load(directory)
  batch = built.arms['trained'].evaluation.batch(0)
  logits = jax.nn.log_softmax(net.apply(variables, batch['input']))
  nll = -np.take_along_axis(np.asarray(logits), batch['label'][..., None], -1)[..., 0].mean()
  np.testing.assert_allclose(tree['trained/training']['test_nll'].values[:, -1], nll, rtol=1e-5)     # both seeds
  seeds = tree['untrained/training']['test_nll'].values[:, -1]
  assert abs(seeds[0] - seeds[1]) > 1e-4 and np.abs(seeds - nll).min() > 1e-4
  assert list(tree['trained/cka'].site.values) == ['resid_post.0', 'resid_post.1']


def test_it_is_trained_further(directory, tmp_path):
  built = study.build(config(directory, 3))
  before, after = pretrained.load(directory).variables['params'], study.run_arm(
      built.arms['main'], tmp_path, lambda: False, False).state.params
  difference = jax.tree.map(lambda a, b: float(np.abs(a[None] - b).max()), before, dict(after))
  assert 0 < max(jax.tree.leaves(difference)) < 0.05           # a few steps of Adam from the checkpoint's values


def test_another_head_is_new_and_the_body_is_the_checkpoints(directory):
  built = study.build(config(directory, 0, task=dict(name='docstrings', families=4, max_tokens=12, min_tokens=4),
                             net=dict(pretrained=str(directory), head=dict(name='classify', pool='last'))))
  arm = built.arms['main']
  given = study._given(arm.config['net'], arm.net)
  assert set(given['params']) == {'embedder', 'stage_0', 'norm'} and arm.net.outputs == 4


@pytest.mark.parametrize('change, message', (
    (dict(pretrained='/no/such/place'), 'is not a directory'),
    (dict(depth=3), 'no tensor fills the parameter'),
    (dict(width=12), 'gives .* the shape'),
    (dict(dept=3), "has no field 'dept'"),
    (dict(embed=dict(vocab=300)), r'reads a table \[256, 16\]')))
def test_what_does_not_fit_is_refused_before_anything_runs(directory, change, message):
  bad = config(directory, 0)
  bad.net.update(change)
  with pytest.raises(ValueError, match=message):
    study.build(bad)

"""Building a study: everything is checked before anything runs, and a wrong name is told the nearest right one."""
import pathlib
import subprocess
import sys

from flax import linen as nn
import numpy as np
import pytest

from aspects import measure as measure_lib
from aspects import plugin
from aspects import results
from aspects import study as study_lib
from configs import common, tour
from tests import tiny

ROOT = pathlib.Path(__file__).parent.parent


def changed(**fields):
  """The tiny config with dotted fields set, as a plain dict."""
  config = tiny.get_config().to_dict()
  for name, value in fields.items():
    *path, last = name.split('__')
    node = config
    for key in path:
      node = node[key]
    node[last] = value
  return config


@pytest.mark.parametrize('fields,words', [
    (dict(stepz=3), "no field 'stepz'; did you mean 'steps'"),
    (dict(analysis__splitt='test'), "analysis has no field 'splitt'; did you mean 'split'"),
    (dict(net__dept=3), "net has no field 'dept'; did you mean 'depth'"),
    (dict(net__channel=dict(name='mlpp')), "net.channel: family 'channels' has no component 'mlpp'; did you mean"),
    (dict(net__channel=dict(name='mlp', ration=2)), "net.channel: 'mlp' has no field 'ration'; did you mean 'ratio'"),
    (dict(net=dict(name='mlp')), 'package.module:Class'),
    (dict(net=dict(name='tests.nowhere:Net')), "no module 'tests.nowhere'"),
    (dict(net__stages=((1, 8), (1, 8))), 'net.transition is not given'),
    (dict(task__name='digit'), "task: family 'tasks' has no component 'digit'; did you mean 'digits'"),
    (dict(task__train_sizes=3), "no field 'train_sizes'; did you mean 'train_size'"),
    (dict(learning__name='backprob'), "did you mean 'backprop'"),
    (dict(learning__learning_rat=1.0), "did you mean 'learning_rate'"),
    (dict(learning__optimizer=dict(name='adamm')), "no optimiser 'adamm'"),
    (dict(measures__cka=dict(name='correlations/ckaa')), "measures.cka: family 'correlations' has no component 'ckaa'"),
    (dict(measures__cka=dict(name='ckaa')), "there is no measure 'ckaa'; did you mean 'cka'"),
    (dict(measures__cka=dict(name='cka', site=('embed',))), "no field 'site'; did you mean 'sites'"),
    (dict(measures__cka=dict(name='cka', sites=('resid_pots.*',))), "no site matches 'resid_pots.*'; did you mean"),
    (dict(measures__cka=dict(name='cka', pool='men')), "pool 'men' is not one of tokens, mean"),
    (dict(seeds=0), 'seeds is 0; it must be a whole number from 1'),
    (dict(batch=2.5), 'batch is 2.5'),
    (dict(steps=-1), 'steps is -1'),
    (dict(analysis__when=(0.0, 1.5)), 'analysis.when holds 1.5'),
    (dict(analysis__split='tests'), "'tests'"),
    (dict(arms=dict(a=dict(nets=dict()))), "arms.a: a config has no field 'nets'; did you mean 'net'"),
    (dict(arms=dict(a=dict(), b=dict(net=dict(depht=3)))), "arms.b: net has no field 'depht'; did you mean 'depth'")])
def test_what_is_wrong_is_named_with_its_place_and_the_nearest(fields, words):
  with pytest.raises(ValueError) as error:
    study_lib.build(changed(**fields))
  assert words in str(error.value)


def test_a_config_that_lacks_a_field_says_so():
  config = changed()
  del config['steps']
  with pytest.raises(ValueError, match="lacks the field 'steps'"):
    study_lib.build(config)


def test_overlay_merges_replaces_components_and_removes():
  base = dict(net=dict(depth=2, mixer=dict(name='attention', heads=4)), measures=dict(a=dict(name='cka', pool='mean')))
  laid = plugin.overlay(base, dict(net=dict(mixer=dict(name='window', size=1)), measures=dict(a=dict(pool='first'))))
  assert laid == dict(net=dict(depth=2, mixer=dict(name='window', size=1)),
                      measures=dict(a=dict(name='cka', pool='first')))
  assert plugin.overlay(base, dict(measures=dict(a=None)))['measures'] == dict(a=None)
  assert base['net']['mixer'] == dict(name='attention', heads=4)


def test_arms_share_seeds_and_differ_in_what_they_say():
  study = study_lib.build(changed(arms=dict(narrow=dict(), wide=dict(net=dict(width=16)))))
  narrow, wide = study.arms['narrow'], study.arms['wide']
  assert narrow.seeds == wide.seeds == (0, 1) and wide.parameters > narrow.parameters
  for step in range(3):
    np.testing.assert_array_equal(narrow.streams.batch(step)['index'], wide.streams.batch(step)['index'])


class Plain(nn.Module):
  """A module of a user's own, without a single tag."""
  outputs: int
  width: int = 6

  @nn.compact
  def __call__(self, x):
    x = x.reshape(x.shape[0], -1)
    for _ in range(3):
      x = nn.relu(nn.Dense(self.width)(x))
    return nn.Dense(self.outputs)(x)


def test_an_own_module_without_tags_is_trained_and_measured(tmp_path):
  config = changed(net=dict(name='tests.test_study:Plain', width=5), steps=2, analysis__when=(1.0,),
                   measures=dict(cka=dict(name='cka', sites=('Dense_0', 'Dense_1', 'Dense_2'))))
  tree = study_lib.run(study_lib.build(config), tmp_path, progress=False)
  found = tree['main']['cka']['cka_linear_song']
  assert list(found.site.values) == ['Dense_0', 'Dense_1', 'Dense_2'] and found.sizes['seed'] == 2
  assert np.isfinite(found.values).all()


def test_the_residual_network_runs(tmp_path):
  config = changed(net=dict(embed=dict(name='pixels'), head=dict(name='classify'), mixer=dict(name='convolutions'),
                            norm=dict(name='group', groups=4), stages=((1, 8), (1, 16)),
                            transition=dict(name='strided')), steps=1, analysis__when=(1.0,))
  tree = study_lib.run(study_lib.build(config), tmp_path, progress=False)
  assert list(tree['main']['cka']['site'].values) == ['resid_post.0', 'resid_post.1']


def test_steps_and_seeds_are_axes_and_step_zero_is_untrained(tmp_path):
  study = study_lib.build(changed(arms=dict(a=dict())))
  tree = study_lib.run(study, tmp_path, progress=False)
  found = tree['a']['cka']['cka_linear_song']
  assert found.dims == ('seed', 'step', 'site', 'other') and list(found.step.values) == [0, 3, 6]
  assert list(found.seed.values) == [0, 1]
  np.testing.assert_allclose(found.values[..., 0, 0], 1, rtol=1e-12)
  assert (found.isel(step=0) != found.isel(step=2)).any()
  again = results.load(tmp_path / 'results.nc')
  np.testing.assert_array_equal(again['a']['cka']['cka_linear_song'].values, found.values)
  training = again['a']['training']
  assert list(training.step.values) == [0, 2, 4, 6] and np.isnan(training['train_loss'].values[:, 0]).all()
  assert np.isfinite(training['test_nll'].values).all()


def run(*arguments):
  return subprocess.run([sys.executable, '-m', 'experiments.run', *arguments], cwd=ROOT, capture_output=True, text=True,
                        timeout=300)


@pytest.mark.parametrize('override,words', [
    ('--config.net.dept=8', '--config.net.dept: the config has no such field; nearest: net.depth'),
    ('--config.measures.cka.pool=men', "pool 'men' is not one of"),
    ('--config.net.channel.name=mlpp', "did you mean 'mlp'")])
def test_the_command_line_gives_one_clear_line(override, words, tmp_path):
  done = run('--config=tests/tiny.py', f'--workdir={tmp_path / "x"}', override)
  assert done.returncode != 0 and words in done.stderr
  assert 'Traceback' not in done.stderr and not (tmp_path / 'x').exists()


def test_an_unknown_scale_is_told():
  with pytest.raises(ValueError, match='there is no scale .huge.; this config has claim, smoke, full'):
    tour.get_config('huge')


@pytest.mark.parametrize('scale', ['', 'smoke', 'claim', 'full'])
def test_every_scale_of_the_tour_builds(scale):
  study = study_lib.build(tour.get_config(scale))
  assert set(study.arms) == {'vision', 'language'}
  for arm in study.arms.values():
    aspects = {spec['name'].split('/')[0] for spec in arm.config['measures'].values()}
    assert aspects == {'features', 'correlations', 'representations', 'depth', 'locality'}
    assert len(arm.program.measures) == 11 and set(arm.comparisons) == {'cka_of_seeds', 'cka_of_steps'}


def test_the_depth_of_all_arms_is_one_field():
  config = tour.get_config('smoke')
  config.net.depth = 3
  study = study_lib.build(config)
  assert all(f'resid_post.{2}' in arm.program.specs and 'resid_post.3' not in arm.program.specs
             for arm in study.arms.values())


def test_common_lists_the_schema():
  assert set(common.base().keys()) == set(study_lib.SCHEMA)


# --- comparisons ----------------------------------------------------------------------------------------------------

def compared(**more):
  cka = dict(name='correlations/cka', sites=('resid_post.*',))
  return changed(comparisons=dict(seeds=dict(over='seed', measure=cka), steps=dict(over='step', measure=cka)), **more)


def test_seeds_and_steps_are_compared_in_one_pass(tmp_path):
  """Each network with itself is what the measure of that seed and step says."""
  arm = study_lib.build(compared()).arms['main']
  calls, stops, found = 0, 0, None
  def every_fifth():
    nonlocal calls
    calls += 1
    return calls == 5
  for _ in range(20):
    calls = 0
    try:
      found = study_lib.run_arm(arm, tmp_path, every_fifth, False).measures
      break
    except study_lib.Preempted:
      stops += 1
  assert found and stops >= 2
  own = found['cka'].cka_linear_song
  seeds, steps = (measure_lib.between(found[name].cka_linear_song) for name in ('seeds', 'steps'))
  assert list(seeds.network.values) == ['seed 0', 'seed 1'] and 'seed' not in seeds.dims
  assert list(steps.network.values) == ['step 0', 'step 3', 'step 6'] and steps.sizes['seed'] == 2
  assert list(seeds.site.values) == ['resid_post.0', 'resid_post.1']
  for s in (0, 1):
    np.testing.assert_allclose(seeds[s, :, s], own.isel(seed=s, step=-1), atol=1e-5)
    for k in range(3):
      np.testing.assert_allclose(steps[s, k, :, k], own.isel(seed=s, step=k), atol=1e-5)
  assert abs(seeds.values[0, :, 1] - seeds.values[0, :, 0]).max() > 0.01
  whole = study_lib.run_arm(study_lib.build(compared()).arms['main'], tmp_path / 'whole', lambda: False, False).measures
  for name in ('seeds', 'steps'):
    np.testing.assert_array_equal(found[name].cka_linear_song, whole[name].cka_linear_song)


def test_comparisons_are_in_the_results_and_the_report(tmp_path):
  tree = study_lib.run(study_lib.build(compared()), tmp_path, progress=False)
  assert tree['main']['steps']['cka_linear_song'].dims == ('seed', 'site', 'other')
  page = (tmp_path / 'report.html').read_text()
  assert 'step 6' in page and 'seed 1' in page


@pytest.mark.parametrize('change, message', [
    (dict(seeds=1), 'comparisons.seeds compares over seeds, but there is one; give more in seeds'),
    (dict(analysis__when=(1.0,)), 'compares over steps, but there is one; give more in analysis.when'),
    (dict(resplit=True), 'with resplit each seed has its own'),
    (dict(comparisons__seeds=dict(over='arm', measure=dict(name='cka'))), "comparisons.seeds.over is 'arm'"),
    (dict(comparisons__seeds=dict(over='seed')), 'comparisons.seeds is'),
    (dict(comparisons__cka=dict(over='seed', measure=dict(name='cka'))), 'comparisons.cka is called like a measure')])
def test_a_comparison_that_cannot_be(change, message):
  with pytest.raises(ValueError, match=message):
    study_lib.build(compared(**change))

"""Layers of one trained network are the less alike the further apart they stand (Kornblith et al. 2019)."""
import jax
import numpy as np
import pytest
from scipy import stats

from aspects import Stream, build, measure_network, study
from tests import tiny

MEASURES = {'cka': 1, 'cka_minibatch': 1, 'cca': 1, 'procrustes': -1, 'rsa': 1, 'linear_regression': 1, 'neighbours': 1,
            'distance_correlation': 1, 'gulp': -1}    # 1: alike is large


@pytest.fixture(scope='module')
def similarity(tmp_path_factory):
  """{measure: [layers, layers]} of a residual network of eight layers, trained on digits."""
  config = tiny.get_config()
  config.net.update(depth=8, width=32)
  config.update(seeds=1, steps=150, batch=32)
  config.measures = dict()
  config.task.train_size = 1000
  config.evaluation.every, config.checkpoint.every, config.analysis.when = 150, 0, (1.0,)
  arm = study.build(config).arms['main']
  done = study.run_arm(arm, tmp_path_factory.mktemp('run'), lambda: False, False)
  assert done.measures['training'].test_accuracy.values[0, -1] > 0.6
  variables = jax.tree.map(lambda x: x[0], study.variables(arm, done.state))
  stream = Stream(arm.task.source('test'), 120)
  measures = {name: build('correlations', dict(name=name)) for name in MEASURES}
  found = measure_network(arm.net, variables, stream, measures)
  return {name: ds[ds.attrs['headline']].values for name, ds in found.items()}


@pytest.mark.parametrize('name', MEASURES)
def test_similarity_falls_with_the_distance_of_layers(name, similarity):
  value = MEASURES[name] * similarity[name]
  i, j = np.nonzero(~np.eye(len(value), dtype=bool))
  assert stats.spearmanr(np.abs(i - j), value[i, j]).statistic < -0.7

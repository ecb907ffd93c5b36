"""The scale of the stream against numpy, and its growth in a network where it is known."""
import jax
import numpy as np
import pytest

from aspects import measure
from aspects import sites
from aspects.depth.stream import Stream
from aspects.net import Net


def oracle(acts):
  """{variable: [site]} over all rows in float64."""
  rows = [x.reshape(-1, x.shape[-1]).astype(np.float64) for x in acts.values()]
  out = {'variance': [x.var(0).mean() for x in rows], 'rms': [np.sqrt((x ** 2).mean()) for x in rows],
         'largest': [abs(x).max() for x in rows]}
  return {**out, 'peak': np.array(out['largest']) / out['rms']}


def test_equals_counting():
  rng = np.random.default_rng(0)
  acts = {f'resid_post.{i}': (rng.normal(size=(90, 4, 7)) * (i + 1) + 30 * i).astype(np.float32) for i in range(3)}
  acts['resid_post.1'][3, 2, 5] = -400                    # the largest is negative
  found = measure.measure_arrays(Stream(), acts, batch_size=32)
  for name, value in oracle(acts).items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
  assert found.largest.sel(site='resid_post.1') == 400


def test_random_branches_of_equal_variance_make_it_grow_linearly():
  """x + sum of L independent branches, each of unit variance, has variance 1 + L."""
  rng = np.random.default_rng(1)
  steps = rng.normal(size=(9, 20000, 16))
  acts = {f'resid_post.{i}': steps[:i + 1].sum(0).astype(np.float32) for i in range(9)}
  np.testing.assert_allclose(measure.measure_arrays(Stream(), acts).variance, np.arange(1, 10), rtol=.02)


def test_post_norm_keeps_the_scale_and_pre_norm_does_not():
  x = jax.random.normal(jax.random.key(0), (64, 4, 4, 1))
  found = {}
  for placement in ('pre', 'post'):
    net = Net(outputs=2, embed=dict(name='pixels'), head=dict(name='classify'), depth=6, width=16,
              channel=dict(name='mlp', act='relu'), placement=dict(name=placement))
    acts = sites.forward(net, net.init(jax.random.key(1), x), x, record=('resid_post.*',))[1]
    found[placement] = measure.measure_arrays(Stream(), {s: np.asarray(v) for s, v in acts.items()})
  np.testing.assert_allclose(found['post'].rms, 1, rtol=1e-3)
  assert (np.diff(found['pre'].rms) > 0).all()


def test_a_stream_of_zeros_has_no_peak_and_no_rows_are_an_error():
  found = measure.measure_arrays(Stream(('*',)), {'x': np.zeros((10, 4), np.float32)})
  assert found.rms == 0 and np.isnan(found.peak)
  with pytest.raises(ValueError, match='needs a row of data'):
    measure.measure_arrays(Stream(('*',)), {'x': np.ones((4, 2), np.float32)}, weight=np.zeros(4, np.float32))

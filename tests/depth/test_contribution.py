"""Contributions to the stream against numpy on all rows, and what outliers do to them."""
import jax
import numpy as np
import pytest

from aspects import measure
from aspects.depth.contribution import QUANTILES, Contribution

SLOTS = ('resid_pre', 'mixer_out', 'resid_mid', 'channel_out', 'resid_post')


def spec(*shape):
  return jax.ShapeDtypeStruct(shape, np.float32)


def run(one, acts, weight, mask, size=8):
  """A measure over batches of `size`, with a mask."""
  statistics, wiring = measure.wire({'m': one}, {s: spec(size, *x.shape[1:]) for s, x in acts.items()})
  states = tuple(s.init({n: spec(size, *x.shape[1:]) for n, x in acts.items()}) for s in statistics)
  update = jax.jit(lambda states, acts, batch: measure.update_all(statistics, states, acts, batch))
  for k in range(0, len(weight), size):
    part = slice(k, k + size)
    states = update(states, {s: x[part] for s, x in acts.items()},
                    {'weight': weight[part], 'mask': mask[part], 'index': np.arange(len(weight))[part]})
  return one.compute(**{k: statistics[i].finish(states[i]) for k, i in wiring['m'].items()})


def oracle(acts, weight, mask, skip_first=0):
  """{variable: values [N, L], rows that count} of every token, float64; weights here are 0 or 1."""
  x = {s: np.asarray(v, np.float64)[:, skip_first:] for s, v in acts.items()}
  real = ((weight[:, None] * mask) > 0)[:, skip_first:]
  norm = lambda v: np.sqrt((v ** 2).sum(-1))
  cosine = lambda a, b: (a * b).sum(-1) / (norm(a) * norm(b))
  out = {}
  for layer in range(sum(s.startswith('resid_pre') for s in acts)):
    pre, mixer, mid, channel, post = (x[f'{slot}.{layer}'] for slot in SLOTS)
    for name, value in dict(mixer_ratio=norm(mixer) / norm(pre), channel_ratio=norm(channel) / norm(mid),
                            mixer_cosine=cosine(mixer, pre), channel_cosine=cosine(channel, mid),
                            stream_cosine=cosine(pre, post), stream_norm=norm(post)).items():
      out.setdefault(name, []).append(value[real])
  return {k: np.stack(v, -1) for k, v in out.items()}


def examples(n=64, t=40, d=6, layers=2, seed=0):
  rng = np.random.default_rng(seed)
  acts, x = {}, rng.normal(size=(n, t, d)) * np.exp(rng.normal(size=(n, t, 1)))
  for layer in range(layers):
    mixer, channel = (.5 * rng.normal(size=x.shape) - .2 * (k + layer) * x for k in (0, 1))
    for slot, value in zip(SLOTS, (x, mixer, x + mixer, channel, x + mixer + channel)):
      acts[f'{slot}.{layer}'] = value.astype(np.float32)
    x = x + mixer + channel
  weight = np.ones(n, np.float32)
  weight[-5:] = 0
  mask = (np.arange(t)[None] < rng.integers(5, t + 1, (n, 1))).astype(np.float32)
  acts['mixer_out.0'][mask == 0] = np.nan
  return acts, weight, mask


def test_equals_numpy_on_all_rows():
  acts, weight, mask = examples()
  found, expected = run(Contribution(), acts, weight, mask), oracle(acts, weight, mask)
  assert list(found.site.values) == ['resid_post.0', 'resid_post.1']
  for name, value in expected.items():
    np.testing.assert_allclose(found[f'{name}_mean'], value.mean(0), rtol=2e-6, atol=1e-7, err_msg=name)
    # exact up to the width of a bin and the gap between neighbours
    low, high = (np.quantile(value, np.clip(np.array(QUANTILES) + e, 0, 1), axis=0) for e in (-.002, .002))
    slack = 1 / 384 if 'cosine' in name else 10 ** (1 / 64)
    if 'cosine' in name:
      assert ((found[name] > low - slack) & (found[name] < high + slack)).all(), name
    else:
      assert ((found[name] > low / slack) & (found[name] < high * slack)).all(), name
  assert found.attrs['rows'] == len(expected['stream_norm'])


def test_a_stream_that_is_scaled_has_exact_contributions():
  """mixer_out = x / 2 and channel_out = -(3/4) resid_mid: ratios 1/2 and 3/4, cosines 1 and -1, stream cosine 1."""
  acts, weight, mask = examples(layers=1)
  x = acts['resid_pre.0']
  acts |= {'mixer_out.0': x / 2, 'resid_mid.0': x * 1.5, 'channel_out.0': x * -1.125, 'resid_post.0': x * .375}
  found = run(Contribution(), acts, weight, mask)
  exact = dict(mixer_ratio=.5, channel_ratio=.75, mixer_cosine=1, channel_cosine=-1, stream_cosine=1)
  for name, value in exact.items():
    np.testing.assert_allclose(found[f'{name}_mean'], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(found[name], value, rtol=.04 if 'ratio' in name else 1 / 300, err_msg=name)


def test_sinks_move_the_mean_and_are_reported_but_not_the_median():
  acts, weight, mask = examples(layers=1)
  sinks = {s: x.copy() for s, x in acts.items()}
  sinks['resid_post.0'][:, 0] *= 1e4 / np.linalg.norm(sinks['resid_post.0'][:, 0], axis=-1, keepdims=True)
  plain, sunk = (run(Contribution(), a, weight, mask) for a in (acts, sinks))
  skipped = run(Contribution(skip_first=1), sinks, weight, mask)
  rows = oracle(acts, weight, mask)['stream_norm']
  assert plain.outlier_share == 0
  np.testing.assert_allclose(sunk.outlier_share, (weight > 0).sum() / len(rows), rtol=1e-9)
  assert sunk.stream_norm_mean > 20 * plain.stream_norm_mean
  np.testing.assert_allclose(sunk.stream_norm.sel(quantile=.5), plain.stream_norm.sel(quantile=.5), rtol=.1)
  assert skipped.outlier_share == 0 and skipped.attrs['rows'] == len(rows) - (weight > 0).sum()
  np.testing.assert_allclose(skipped.stream_norm_mean, oracle(acts, weight, mask, 1)['stream_norm'].mean(0), rtol=1e-6)


def quantities(*names):
  needs = Contribution().needs({n: spec(2, 3, 4) for n in names})
  return set(needs['sizes'].quantities + needs['cosines'].quantities)


def test_streams_of_each_kind_of_block():
  whole = {('norm', 'resid_post.0'), ('cosine', 'resid_pre.0', 'resid_post.0')}
  both = lambda *pair: {('ratio', *pair), ('cosine', *pair)}
  ends = ('resid_pre.0', 'resid_post.0')
  assert quantities(*ends, 'channel_out.0') == whole | both('channel_out.0', 'resid_pre.0')
  assert quantities(*ends, 'mixer_out.0') == whole | both('mixer_out.0', 'resid_pre.0')
  parallel = both('mixer_out.0', 'resid_pre.0') | both('channel_out.0', 'resid_pre.0')
  assert quantities(*ends, 'mixer_out.0', 'channel_out.0') == whole | parallel
  assert quantities(*ends, 'resid_mid.0', 'mixer_out.0', 'channel_out.0') == (
      whole | both('mixer_out.0', 'resid_pre.0') | both('channel_out.0', 'resid_mid.0'))


def test_sublayers_that_no_layer_has_are_left_out():
  rng = np.random.default_rng(0)
  acts = {f'{slot}.{layer}': rng.normal(size=(8, 4, 3 + layer)).astype(np.float32) for layer in (0, 1)
          for slot in ('resid_pre', 'resid_post', 'channel_out')}
  found = measure.measure_arrays(Contribution(), acts | {'mixer_out.1': acts['channel_out.1']})
  assert np.isnan(found.mixer_ratio.sel(site='resid_post.0')).all() and np.isfinite(found.mixer_ratio[:, 1]).all()
  found = Contribution().compute(**{k: s.finish(s.init({})) for k, s in Contribution().needs(
      {n: spec(8, 4, 3) for n in acts}).items()})
  assert 'mixer_ratio' not in found and 'channel_ratio' in found


@pytest.mark.parametrize('fields, names, message', [
    ({'sites': ('embed',)}, ('embed',), "'embed' ends none"),
    ({}, ('resid_post.0',), "no site matches 'resid_pre.0'"),
    ({'sites': ('resid_pots.*',)}, ('resid_post.0',), 'did you mean')])
def test_errors_say_the_way_out(fields, names, message):
  with pytest.raises(ValueError, match=message):
    Contribution(**fields).needs({n: spec(2, 3, 4) for n in names})


def test_positions_cannot_be_left_out_after_pooling():
  with pytest.raises(ValueError, match="which pool 'mean' joins"):
    Contribution(pool='mean', skip_first=1)
  acts, weight, mask = examples(n=8, t=5, layers=1)
  with pytest.raises(ValueError, match='leaves none of the 5 positions'):
    run(Contribution(skip_first=5), acts, weight, mask)

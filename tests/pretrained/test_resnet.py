"""ResNet against transformers; measures, edits and a study of a network with fixed statistics of batches."""
import jax
import numpy as np

import aspects
from aspects import measure, study
from configs import common
from tests.pretrained import images, laws


class TestResnet(images.Convolutional):
  config = 'ResNetConfig'
  cases = {
      'bottleneck': ('ResNetForImageClassification', dict(embedding_size=8, hidden_sizes=[16, 24], depths=[3, 2])),
      'basic': ('ResNetForImageClassification', dict(embedding_size=8, hidden_sizes=[8, 12], depths=[2, 2],
                                                     layer_type='basic', hidden_act='silu')),
      'body, early strides': ('ResNetModel', dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2],
                                                  downsample_in_bottleneck=True, downsample_in_first_stage=True))}
  prefix = 'resnet.'
  refused = (('layer_type', 'wide', "layer_type is 'wide'"), ('depths', [1, 2, 3], 'one of each for a stage'),
             ('hidden_act', 'gelu_10', 'gelu_10'))

  @classmethod
  def places(cls, case):
    fields = cls.cases[case][1]
    at = '' if 'body' in case else 'resnet.'
    units = [f'{at}encoder.stages.{i}.layers.{j}' for i, depth in enumerate(fields['depths']) for j in range(depth)]
    out = {'embed': f'{at}embedder', 'final_norm': f'{at}encoder.stages.1', 'pooled': f'{at}pooler'}
    for n, unit in enumerate(units):
      out |= {f'resid_pre.{n}': f'{unit}.in', f'mixer_in.{n}': f'{unit}.in', f'mixer_raw.{n}': f'{unit}.layer',
              f'mixer_out.{n}': f'{unit}.layer', f'mixer_sum.{n}': f'{unit}.activation.in', f'resid_post.{n}': unit}
      if f'shortcut.{n}' in laws.ours(cls, case, False):
        out[f'shortcut.{n}'] = f'{unit}.shortcut'
    return out

  def holds(self, at):
    start = at.get('shortcut', at['resid_pre'])
    laws.near(start + at['mixer_out'], at['mixer_sum'], 1e-6)
    if at['resid_post'].min() >= 0:                   # relu; silu has small negative values
      np.testing.assert_array_equal(np.maximum(at['mixer_sum'], 0), at['resid_post'])
    else:
      laws.near(at['mixer_sum'] / (1 + np.exp(-at['mixer_sum'])), at['resid_post'])

  def wrong(self):
    stats = 'batch_stats/stage_1/block_1/mixer/convolutions/norm_1/affine'
    params = 'params/stage_1/block_1/mixer/convolutions'
    kernel = 'params/stage_1/block_0/mixer/convolutions/conv_1/kernel'
    return {
        'mean and variance swapped': lambda v: {f'{stats}/mean': v[f'{stats}/var'],
                                                f'{stats}/var': v[f'{stats}/mean'] ** 2},
        'gain and bias swapped': lambda v: {f'{params}/norm_2/affine/{a}': v[f'{params}/norm_2/affine/{b}']
                                            for a, b in (('scale', 'bias'), ('bias', 'scale'))},
        'rows and columns of a filter swapped': lambda v: {kernel: v[kernel].swapaxes(0, 1)},
        'inputs and outputs of a filter swapped': lambda v: {kernel: v[kernel].swapaxes(2, 3)}}

  def test_every_unit_is_a_layer(self):
    acts = laws.ours(TestResnet, 'bottleneck', True)
    assert [n for n in acts if n.startswith('resid_post')] == [f'resid_post.{i}' for i in range(5)]
    assert [n for n in acts if n.startswith('shortcut')] == ['shortcut.0', 'shortcut.3']

  def test_a_side_that_is_no_power_of_two(self):
    pixels = np.random.default_rng(1).normal(size=(1, 17, 17, 3)).astype(np.float32)
    found = laws.loaded(TestResnet, 'bottleneck', True)
    out, _ = images.reference.run(laws.torch_net(TestResnet, 'bottleneck'), pixel_values=pixels.transpose(0, 3, 1, 2))
    images.reference.close(jax.jit(found.net.apply)(found.variables, pixels), out.logits.numpy())

  def test_a_layer_that_is_skipped_leaves_its_shortcut(self):
    found = laws.loaded(TestResnet, 'bottleneck', True)
    _, acts = aspects.forward(found.net, found.variables, *self.inputs()[0], record=('resid_post.*', 'shortcut.3'),
                              edits={'mixer_out.[23]': aspects.Skip()})
    np.testing.assert_array_equal(acts['resid_post.2'], acts['resid_post.1'])
    np.testing.assert_array_equal(acts['resid_post.3'], np.maximum(acts['shortcut.3'], 0))

  def test_measures_read_the_statistics_of_batches(self):
    found, (pixels,) = laws.loaded(TestResnet, 'bottleneck', True), self.inputs()[0]
    class Stream:
      def __len__(self):
        return 1
      def batch(self, step):
        return dict(input=pixels, weight=np.ones(2, np.float32))
    spread = aspects.plugin.build('features', dict(name='spectrum', sites=('resid_post.*',), pool='tokens'))
    out = measure.measure_network(found.net, found.variables, Stream(), spread)
    assert list(out.site.values) == [f'resid_post.{i}' for i in range(5)]
    acts = laws.ours(TestResnet, 'bottleneck', True)
    for i in range(5):
      rows = acts[f'resid_post.{i}'].reshape(-1, acts[f'resid_post.{i}'].shape[-1])
      values = np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64), bias=True))
      np.testing.assert_allclose(np.asarray(out.participation_ratio.sel(site=f'resid_post.{i}')).squeeze(),
                                 values.sum() ** 2 / (values ** 2).sum(), rtol=1e-3)


def test_a_study_keeps_the_statistics_of_batches(tmp_path):
  class Digits(TestResnet):
    usual = {'num_labels': 10, 'num_channels': 1}
    cases = {'small': ('ResNetForImageClassification', dict(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1],
                                                            layer_type='basic'))}
    __test__ = False
  config = common.base()
  config.seeds, config.steps, config.batch = 1, 1, 8
  config.task = dict(name='digits')
  config.net = dict(pretrained=str(laws.directory(Digits, 'small')))
  config.learning = dict(name='backprop', objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=8, batch=8, every=0)
  config.analysis = dict(split='test', examples=16, batch=8, when=(1.0,), call=dict())
  config.measures = dict(spectrum=dict(name='features/spectrum', sites=('resid_post.-1',)))
  built = study.build(config)
  state = study.run_arm(built.arms['main'], tmp_path, lambda: False, False).state
  before, after = laws.loaded(Digits, 'small', False).variables, study.variables(built.arms['main'], state)
  same = jax.tree.map(lambda a, b: np.array_equal(a, b[0]), before, dict(after))
  assert all(jax.tree.leaves(same['batch_stats'])) and not all(jax.tree.leaves(same['params']))

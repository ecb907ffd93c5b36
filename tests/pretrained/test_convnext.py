"""ConvNeXt against transformers."""
import jax
import numpy as np

from tests.pretrained import images, laws

SMALL = dict(hidden_sizes=[8, 12], depths=[2, 2], num_stages=2, image_size=24)


class TestConvnext(images.Convolutional):
  config = 'ConvNextConfig'
  cases = {'classifier': ('ConvNextForImageClassification', SMALL),
           'no layer scale, silu': ('ConvNextForImageClassification', dict(SMALL, layer_scale_init_value=0.0,
                                                                           hidden_act='silu', patch_size=2)),
           'body': ('ConvNextModel', dict(SMALL, layer_norm_eps=1e-2))}
  prefix = 'convnext.'
  refused = (('num_stages', 3, 'one of each for num_stages'), ('patch_size', [4, 2], 'patch_size is'),
             ('hidden_act', 'gelu_10', 'gelu_10'))

  @classmethod
  def places(cls, case):
    at = '' if case == 'body' else 'convnext.'
    out = {'embed': f'{at}embeddings', 'final_norm': f'{at}encoder.stages.1', 'pooled': f'{at}layernorm'}
    for n, layer in enumerate(f'{at}encoder.stages.{i}.layers.{j}' for i in range(2) for j in range(2)):
      out |= {f'resid_pre.{n}': f'{layer}.in', f'mixer_in.{n}': f'{layer}.in', f'mixer_raw.{n}': f'{layer}.dwconv',
              f'channel_in.{n}': f'{layer}.layernorm', f'channel_pre.{n}': f'{layer}.pwconv1',
              f'channel_act.{n}': f'{layer}.pwconv2.in', f'channel_raw.{n}': f'{layer}.pwconv2',
              f'resid_post.{n}': layer}
    return out

  def holds(self, at):
    laws.near(at['resid_pre'] + at['channel_out'], at['resid_post'], 1e-6)
    assert 'mixer_out' not in at and 'resid_mid' not in at

  def test_what_the_layer_scale_gives_is_added(self, case):
    acts, params = laws.ours(TestConvnext, case, False), laws.loaded(TestConvnext, case, False).variables['params']
    for n, block in enumerate(params[f'stage_{i}'][f'block_{j}'] for i in range(2) for j in range(2)):
      out = block['channel']['out']
      raw = acts[f'channel_act.{n}'] @ np.asarray(out['kernel']) + np.asarray(out['bias'])
      laws.near(raw, acts[f'channel_raw.{n}'])
      gain = np.asarray(block['residual']['channel_branch']['gain']) if case != 'no layer scale, silu' else 1
      laws.near(acts[f'channel_raw.{n}'] * gain, acts[f'channel_out.{n}'])

  def wrong(self):
    kernel, norm = 'params/stage_1/block_0/mixer/kernel', 'params/transition_1/normed/affine'
    return {'rows and columns of a filter swapped': lambda v: {kernel: v[kernel].swapaxes(0, 1)},
            'another layer': lambda v: {kernel: v[kernel.replace('block_0', 'block_1')]},
            'gain and bias of a transition swapped': lambda v: {f'{norm}/scale': v[f'{norm}/bias'],
                                                                f'{norm}/bias': v[f'{norm}/scale']}}

  def test_a_side_that_leaves_a_rest(self):
    """5 pixels a side before a stride of 2."""
    pixels = np.random.default_rng(1).normal(size=(1, 20, 20, 3)).astype(np.float32)
    found = laws.loaded(TestConvnext, 'classifier', True)
    out, _ = images.reference.run(laws.torch_net(TestConvnext, 'classifier'), pixel_values=pixels.transpose(0, 3, 1, 2))
    images.reference.close(jax.jit(found.net.apply)(found.variables, pixels), out.logits.numpy())

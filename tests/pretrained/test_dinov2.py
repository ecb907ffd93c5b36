"""DINOv2 against transformers."""
import pytest

from tests.pretrained import images

SMALL = dict(hidden_size=12, num_attention_heads=3, mlp_ratio=2, image_size=12, patch_size=4)
AT = 'dinov2.encoder.layer.{i}'
PLAIN = images.layout(AT, 'dinov2.layernorm', ('norm1', 'norm2'), embed='dinov2.embeddings',
                      mixer_out=f'{AT}.layer_scale1', channel_out=f'{AT}.layer_scale2')
GATED = {**PLAIN, 'channel_pre': f'{AT}.mlp.gate_proj', 'channel_gate': f'{AT}.mlp.up_proj',
         'channel_act': f'{AT}.mlp.down_proj.in', 'channel_raw': f'{AT}.mlp'}


class TestDinov2(images.Images):
  config = 'Dinov2Config'
  cases = {'gated': ('Dinov2ForImageClassification', dict(SMALL, use_swiglu_ffn=True)),
           'plain': ('Dinov2ForImageClassification', dict(SMALL, use_mask_token=False)),
           'body': ('Dinov2Model', dict(SMALL, qkv_bias=False, layer_norm_eps=1e-3, hidden_act='silu'))}
  prefix = 'dinov2.'
  side = 12
  refused = (('image_size', [12, 8], 'image_size is'), ('use_swiglu_ffn', 'both', "use_swiglu_ffn is 'both'"))

  @classmethod
  def layout_of(cls, case):
    return GATED if case == 'gated' else PLAIN

  @pytest.mark.parametrize('height, width', [(20, 8), (4, 4)])
  def test_images_of_another_size(self, height, width):
    self.same_at('plain', height, width)

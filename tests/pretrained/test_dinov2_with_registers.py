"""DINOv2 with registers against transformers."""
import pytest

from tests.pretrained import images

SMALL = dict(hidden_size=12, num_attention_heads=2, mlp_ratio=2, image_size=16, patch_size=4, num_register_tokens=3)
AT = 'dinov2_with_registers.encoder.layer.{i}'


class TestDinov2WithRegisters(images.Images):
  config = 'Dinov2WithRegistersConfig'
  cases = {'classifier': ('Dinov2WithRegistersForImageClassification', SMALL),
           'body': ('Dinov2WithRegistersModel', dict(SMALL, qkv_bias=False))}
  layout = images.layout(AT, 'dinov2_with_registers.layernorm', ('norm1', 'norm2'),
                         embed='dinov2_with_registers.embeddings', mixer_out=f'{AT}.layer_scale1',
                         channel_out=f'{AT}.layer_scale2')
  prefix = 'dinov2_with_registers.'
  side = 16
  refused = (('num_register_tokens', 0, 'num_register_tokens is 0'), ('use_swiglu_ffn', 2, 'use_swiglu_ffn'))

  @pytest.mark.parametrize('height, width', [(24, 8), (12, 28)])
  def test_images_of_another_size(self, height, width):
    self.same_at('classifier', height, width)                        # resized with antialiasing, smaller and larger

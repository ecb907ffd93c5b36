"""ViT against transformers."""
import pytest

from aspects import pretrained
from tests.pretrained import images, laws

SMALL = dict(hidden_size=12, num_attention_heads=3, intermediate_size=20, image_size=8, patch_size=4)


class TestVit(images.Images):
  config = 'ViTConfig'
  cases = {'no biases, quick': ('ViTForImageClassification', dict(SMALL, qkv_bias=False, hidden_act='quick_gelu')),
           'body with a pooler': ('ViTModel', dict(SMALL, layer_norm_eps=1e-3, pooler_output_size=7))}
  layout = images.layout('vit.layers.{i}', 'vit.layernorm', embed='vit.embeddings')
  prefix = 'vit.'
  refused = (('hidden_act', 'gelu_10', 'gelu_10'), ('patch_size', [4, 2], 'patch_size is'), ('qkv_bias', 2, 'qkv_bias'),
             ('architectures', ['ViTForMaskedImageModeling'], 'architectures is'))

  @pytest.mark.parametrize('height, width', [(16, 12), (4, 8)])
  def test_images_of_another_size(self, height, width):
    self.same_at('no biases, quick', height, width, interpolate_pos_encoding=True)

  def test_images_that_are_not_square(self, tmp_path):
    path = laws.directory(TestVit, 'no biases, quick')
    assert laws.described(path, tmp_path, image_size=[8, 16]).spec['embed']['grid'] == (2, 4)

  def test_what_the_processor_reads_has_the_size_of_the_example(self):
    assert pretrained.describe(laws.directory(TestVit, 'no biases, quick')).example.shape == (8, 8, 3)

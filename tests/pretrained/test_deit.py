"""DeiT against transformers."""
import numpy as np

from tests.pretrained import images, laws, reference

SMALL = dict(hidden_size=12, num_attention_heads=2, intermediate_size=20, image_size=8, patch_size=4)


class TestDeit(images.Images):
  config = 'DeiTConfig'
  cases = {'with teacher': ('DeiTForImageClassificationWithTeacher', SMALL),
           'classifier': ('DeiTForImageClassification', dict(SMALL, qkv_bias=False)), 'body': ('DeiTModel', SMALL)}
  layout = images.layout('deit.layers.{i}', 'deit.layernorm', embed='deit.embeddings')
  prefix = 'deit.'
  refused = (('hidden_act', 'gelu_10', 'gelu_10'), ('qkv_bias', 2, 'qkv_bias'))

  def test_images_of_another_size(self):
    self.same_at('with teacher', 12, 8, interpolate_pos_encoding=True)

  def test_each_classifier_reads_its_own_token(self):
    out, _ = reference.run(laws.torch_net(TestDeit, 'with teacher'), **self.inputs()[1])
    pooled = laws.ours(TestDeit, 'with teacher', True)['pooled']
    head = laws.loaded(TestDeit, 'with teacher', True).variables['params']['head']
    for token, name, logits in ((0, 'logits_map', out.cls_logits), (1, 'distilled_map', out.distillation_logits)):
      own = pooled[:, token] @ np.asarray(head[name]['kernel']) + np.asarray(head[name]['bias'])
      reference.close(own, logits.numpy())

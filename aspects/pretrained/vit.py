"""An Image is Worth 16x16 Words: ViT (Dosovitskiy et al. 2020, arXiv:2010.11929), as in transformers' `vit`.

Images of another size are read with resized positions. `ViTModel` gives all tokens after the last norm; its pooler is
not read."""
from aspects.nn.huggingface import Config, Import
from aspects.nn.vision import vision


def vit(c: Config) -> Import:
  classifies = c.head(ViTForImageClassification=True, ViTModel=False)
  c.leave('encoder_stride', 'pooler_output_size', 'pooler_act')
  head = dict(name='classify', pool='first') if classifies else dict(name='embedding', pool='tokens')
  return vision(c, 'vit', head, [('classifier', 'logits_map')] if classifies else (), epsilon=1e-12)

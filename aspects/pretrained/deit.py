"""Training data-efficient image transformers: DeiT, with a token of distillation (Touvron et al. 2020, arXiv:2012.12877).

`DeiTForImageClassificationWithTeacher` has a classifier for either token, whose logits are averaged; `DeiTModel` gives
all tokens after the last norm, its pooler is not read."""
from aspects.nn.huggingface import Config, Import
from aspects.nn.vision import vision


def deit(c: Config) -> Import:
  kind = c.head(DeiTForImageClassificationWithTeacher='teacher', DeiTForImageClassification='first', DeiTModel='tokens')
  c.leave('encoder_stride', 'pooler_output_size', 'pooler_act')
  head, classifiers = {
      'teacher': (dict(name='distilled'), [('cls_classifier', 'logits_map'),
                                           ('distillation_classifier', 'distilled_map')]),
      'first': (dict(name='classify', pool='first'), [('classifier', 'logits_map')]),
      'tokens': (dict(name='embedding', pool='tokens'), [])}[kind]
  return vision(c, 'deit', head, classifiers, epsilon=1e-12, embed=dict(distilled=True),
                tokens={'distillation_token': 'distilled_token'})

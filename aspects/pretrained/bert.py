"""BERT: Pre-training of Deep Bidirectional Transformers (Devlin et al. 2018, arXiv:1810.04805), as in transformers' `bert`.

The body alone has the head `embedding`: all tokens, or, in a directory of sentence-transformers (modules.json), one
vector as that asks for. Its pooler, and what a masked language model was pre-trained with beside its own head, are not
used by these networks: the tensors are kept in the directory and written back by `save`."""
from aspects.nn import keys
from aspects.nn.decoders import activation
from aspects.nn.encoders import encoder, masked
from aspects.nn.huggingface import Config, Import

OLDER = {r'\.LayerNorm\.weight$': '.LayerNorm.gamma', r'\.LayerNorm\.bias$': '.LayerNorm.beta',
         r'predictions\.decoder\.bias$': 'predictions.bias'}     # names of the first converted checkpoints


def bert(c: Config) -> Import:
  c.leave('classifier_dropout')
  return encoder(c, 'bert.', dict(BertModel=None, BertForMaskedLM=_masked, BertForPreTraining=_masked,
                                  BertForSequenceClassification=_classifier), older=OLDER)


def _masked(c: Config, norm: dict, tied: bool):
  at = 'cls.predictions'
  return masked('bert.embeddings.word_embeddings.weight', activation(c, c('hidden_act', 'gelu')),
                f'{at}.transform.dense', f'{at}.transform.LayerNorm', f'{at}.decoder', f'{at}.bias', c('vocab_size'),
                norm, tied)


def _classifier(c: Config, norm: dict, tied: bool):
  spec = dict(name='classify', pool='first', hidden='tanh')
  return spec, c.labels(), [*keys.linear('bert.pooler.dense', 'head/hidden_map'),
                            *keys.linear('classifier', 'head/logits_map')], {}

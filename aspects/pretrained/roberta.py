"""RoBERTa: A Robustly Optimized BERT Pretraining Approach (Liu et al. 2019, arXiv:1907.11692), as in transformers' `roberta`.

Its positions count from the padding token's id + 1. Differs from transformers: positions are those of the tokens in the
row, so that texts are padded on the right, and a padding token within a text counts. The body's pooler is not used: its
tensors are kept in the directory and written back by `save`; see `bert` for directories of sentence-transformers."""
from aspects.nn import keys
from aspects.nn.encoders import encoder, masked
from aspects.nn.huggingface import Config, Import

OLDER = {r'^lm_head\.decoder\.bias$': 'lm_head.bias'}


def roberta(c: Config) -> Import:
  c.leave('classifier_dropout')
  padding = c('pad_token_id', 1)
  if not isinstance(padding, int) or padding < 0:
    raise ValueError(f'{c.where}: pad_token_id is {padding!r}; positions count from it')
  return encoder(c, 'roberta.', dict(RobertaModel=None, RobertaForMaskedLM=_masked,
                                     RobertaForSequenceClassification=_classifier), offset=padding + 1, older=OLDER)


def _masked(c: Config, norm: dict, tied: bool):
  return masked('roberta.embeddings.word_embeddings.weight', 'gelu', 'lm_head.dense', 'lm_head.layer_norm',
                'lm_head.decoder', 'lm_head.bias', c('vocab_size'), norm, tied)


def _classifier(c: Config, norm: dict, tied: bool):
  spec = dict(name='classify', pool='first', hidden='tanh')
  return spec, c.labels(), [*keys.linear('classifier.dense', 'head/hidden_map'),
                            *keys.linear('classifier.out_proj', 'head/logits_map')], {}

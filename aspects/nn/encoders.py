"""What the importers of BERT's kind share: summed embeddings with a norm, post-norm blocks, and their names."""
from typing import Any, Iterable, Mapping, Sequence

import jax
import numpy as np

from aspects.nn import keys, sentences
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import
from aspects.nn.keys import Key

# Tensors that a network with this head does not use; transformers does not use the bias beside an untied decoder's.
POOLER = r'(.*\.)?pooler\..*'
SPARE = {'embedding': (POOLER, r'(cls|lm_head|classifier)\..*'), 'classify': (POOLER,),
         'unembed': (POOLER, r'cls\.seq_relationship\..*', r'(cls\.predictions|lm_head)\.bias')}


def encoder(c: Config, prefix: str, heads: Mapping[str, Any], *, offset: int = 0, types: int = 2,
            older: Mapping[str, str] | None = None) -> Import:
  """An encoder of BERT's kind whose body is called `prefix`; `offset` rows of the position table are not used.

  `heads` {class: f(c, norm, tied) -> (spec of the head, its size, keys, copies)}; a body alone, or in a directory of
  sentence-transformers whatever its class, has the head `embedding`. Tensors of heads that are not used are spare.
  """
  width, depth, count, vocab = (c(n) for n in ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'vocab_size'))
  length, hidden = c('max_position_embeddings', 512) - offset, c('intermediate_size')
  types, act = c('type_vocab_size', types), activation(c, c('hidden_act', 'gelu'))
  c.only('position_embedding_type', 'absolute')
  c.only('is_decoder', False)
  c.only('add_cross_attention', False)
  c.only('is_encoder_decoder', False)
  make, tied = c.head(**heads), c.only('tie_word_embeddings', True, False)
  norm = dict(name='layer', epsilon=c('layer_norm_eps', 1e-12))
  sentence = sentences.head(c, width)
  head, outputs, found, copies = make(c, norm, tied) if make and not sentence else (
      sentence or dict(name='embedding', pool='tokens'), width, [], {})
  spec = dict(
      outputs=outputs, depth=depth, width=width, norm=norm, placement=dict(name='post'), final_norm=False, head=head,
      embed=dict(name='tokens', vocab=vocab, length=length, offset=offset, types=types, norm=norm),
      mixer=dict(name='attention', heads=count), channel=dict(name='mlp', size=hidden, act=act))
  found = [*_embedder(f'{prefix}embeddings'), *keys.blocks(depth, _block(prefix, count, width // count)), *found]
  return Import(spec, found, jax.ShapeDtypeStruct((2,), np.int32), prefix,
                (r'(.*\.)?embeddings\.(position|token_type)_ids',), copies, SPARE[head['name']], older or {})


def _embedder(theirs: str) -> Iterable[Key]:
  for name, ours in (('word', 'token/embedding'), ('position', 'position'), ('token_type', 'type/embedding')):
    yield keys.key(f'{theirs}.{name}_embeddings.weight', f'embedder/{ours}')
  yield from keys.norm(f'{theirs}.LayerNorm', 'embedder/normed')


def _block(prefix: str, heads: int, size: int):
  def block(i: int, at: str) -> Iterable[Key]:
    b = f'{prefix}encoder.layer.{i}'
    names: Sequence[str] = [f'{b}.attention.{n}' for n in ('self.query', 'self.key', 'self.value', 'output.dense')]
    yield from keys.attention(at, names, heads, size)
    yield from keys.norm(f'{b}.attention.output.LayerNorm', f'{at}/residual/mixer_norm')
    yield from keys.linear(f'{b}.intermediate.dense', f'{at}/channel/in')
    yield from keys.linear(f'{b}.output.dense', f'{at}/channel/out')
    yield from keys.norm(f'{b}.output.LayerNorm', f'{at}/residual/channel_norm')
  return block


def masked(table: str, act: str, transform: str, norm: str, decoder: str, bias: str, vocab: int,
           epsilon: Mapping[str, Any], tied: bool):
  """The head of a masked language model: a layer with a norm, then the table of the embedding or a map of its own."""
  spec = dict(name='unembed', hidden=act, norm=epsilon, tied=tied, bias=True)
  found = [*keys.linear(transform, 'head/hidden_map'), *keys.norm(norm, 'head/hidden_norm')]
  if tied:
    found.append(keys.key(bias, 'head/bias'))
    return spec, vocab, found, {f'{decoder}.weight': table, f'{decoder}.bias': bias}
  return spec, vocab, [*found, *keys.linear(decoder, 'head/logits_map')], {}

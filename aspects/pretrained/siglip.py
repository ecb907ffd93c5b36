"""Sigmoid Loss for Language Image Pre-Training: SigLIP (Zhai et al. 2023, arXiv:2303.15343), as in transformers' `siglip`.

A directory holds two networks, as that of `clip` does; `logit_scale` and `logit_bias` belong to neither and are written
back. Differs from transformers: a text is pooled at its last real token where a mask is given, and they at the end of
the row. The published networks read texts that are padded to all positions, padding included: call them without a
mask. The tower of images is pooled by the head `attention_pool`."""
from aspects.nn import keys, towers
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import

TEXT = dict(vocab_size=32000, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            max_position_embeddings=64, hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-6)
VISION = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224,
              patch_size=16, hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-6)


def siglip(c: Config) -> dict[str, Import]:
  c.head(SiglipModel=None)
  texts, images = towers.inside(c, 'text_config'), towers.inside(c, 'vision_config')
  out = dict(text=of_text(texts), vision=of_vision(images))
  texts.finish()
  images.finish()
  return out


def of_text(c: Config) -> Import:
  """The tower of texts, with the linear map at its end."""
  c.only('model_type', 'siglip_text_model')
  size = c('projection_size', None) or c('hidden_size', TEXT['hidden_size'])
  spec = dict(name='embedding', pool='last', projection=True, bias=True)
  return towers.text(c, towers.Head(spec, size, keys.linear('text_model.head', 'head/projection')), TEXT, causal=False)


def of_vision(c: Config) -> Import:
  """The tower of images; all tokens where `vision_use_head` is false."""
  c.only('model_type', 'siglip_vision_model')
  width, heads, hidden = (c(n, VISION[n]) for n in ('hidden_size', 'num_attention_heads', 'intermediate_size'))
  spec, found = dict(name='embedding', pool='tokens'), []
  if c.only('vision_use_head', True, False):
    norm = dict(name='layer', epsilon=c('layer_norm_eps', VISION['layer_norm_eps']))
    spec = dict(name='attention_pool', heads=heads, size=hidden, norm=norm,
                act=activation(c, c('hidden_act', VISION['hidden_act'])))
    found = _pooling('vision_model.head', width, heads)
  return towers.vision(c, towers.Head(spec, width, found), VISION, class_token=False, final_norm=True)


def _pooling(at: str, width: int, heads: int) -> list[keys.Key]:
  size = width // heads
  names = [f'head/{n}' for n in ('query', 'key', 'value')]
  form = keys.fused([width] * 3, [keys.to_heads(heads, size)] * 3)
  return [keys.key(f'{at}.probe', 'head/probe'),
          keys.key(f'{at}.attention.in_proj_weight', [f'{n}/kernel' for n in names], form),
          keys.key(f'{at}.attention.in_proj_bias', [f'{n}/bias' for n in names], form),
          keys.key(f'{at}.attention.out_proj.weight', 'head/out/kernel', keys.from_heads(heads, size)),
          keys.key(f'{at}.attention.out_proj.bias', 'head/out/bias'), *keys.norm(f'{at}.layernorm', 'head/pooled_norm'),
          *keys.linear(f'{at}.mlp.fc1', 'head/hidden_in'), *keys.linear(f'{at}.mlp.fc2', 'head/hidden_out')]

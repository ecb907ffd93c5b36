"""Learning Transferable Visual Models From Natural Language Supervision: CLIP (Radford et al. 2021, arXiv:2103.00020), as in transformers' `clip`.

A directory holds two networks: `load('DIR#text')`, `load('DIR#vision')`, or `towers('DIR')` for both. Their outputs are
the projected vectors, of any length: cosines are for the caller, or head.unit=True. The scale of the cosines,
`logit_scale`, belongs to neither and is written back. A text is pooled at its last real token, which a mask must tell:
the tokenizer puts the end of the text there. Images of another size are read with resized positions."""
from typing import Any

from aspects.nn import keys, towers
from aspects.nn.huggingface import Config, Import

TEXT = dict(vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
            max_position_embeddings=77, hidden_act='quick_gelu', layer_norm_eps=1e-5)
VISION = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224,
              patch_size=32, hidden_act='quick_gelu', layer_norm_eps=1e-5)


def clip(c: Config) -> dict[str, Import]:
  c.head(CLIPModel=None)
  c.leave('logit_scale_init_value')
  size, texts, images = c('projection_dim', 512), towers.inside(c, 'text_config'), towers.inside(c, 'vision_config')
  out = dict(text=of_text(texts, size), vision=of_vision(images, size))
  texts.finish()
  images.finish()
  return out


def of_text(c: Config, size: int | None) -> Import:
  """The tower of texts, projected to `size` units, or, None, not at all."""
  c.leave('projection_dim')
  c.only('model_type', 'clip_text_model')
  head = _head(c, 'text_projection', size, TEXT, dict(pool='end'))
  return towers.text(c, head, TEXT, causal=True)


def of_vision(c: Config, size: int | None) -> Import:
  """The tower of images; only what is pooled goes through the last norm."""
  c.leave('projection_dim')
  c.only('model_type', 'clip_vision_model')
  norm = dict(name='layer', epsilon=c('layer_norm_eps', VISION['layer_norm_eps']))
  head = _head(c, 'visual_projection', size, VISION, dict(pool='first', norm=norm))
  head = head._replace(keys=[*head.keys, *keys.norm('vision_model.post_layernorm', 'head/pooled_norm')])
  return towers.vision(c, head, VISION, class_token=True, final_norm=False)


def _head(c: Config, name: str, size: int | None, usual: dict[str, Any], fields: dict[str, Any]) -> towers.Head:
  spec = dict(name='embedding', projection=size is not None, **fields)
  found = [] if size is None else keys.linear(name, 'head/projection', bias=False)
  return towers.Head(spec, c('hidden_size', usual['hidden_size']) if size is None else size, found)

"""Gemma 3 from 4B on, as a language model: its part that reads pictures is left out (Kamath et al. 2025, arXiv:2503.19786).

Without pictures the network is that of `gemma3_text`; the tensors of the vision tower stay in the directory and are
written back by `save`. Tokens that stand for pictures are read as any others."""
import re

from aspects.nn.gemma3 import gemma3_decoder
from aspects.nn.huggingface import Config, Import

# Names of published files, and of a body that was saved alone.
OLDER = {r'^model\.language_model\.': 'language_model.model.', r'^lm_head\.': 'language_model.lm_head.',
         r'^model\.(?=language_model\.)': ''}
SPARE = (r'(model\.)?vision_tower\..*', r'(model\.)?multi_modal_projector\..*')


def gemma3(c: Config) -> Import:
  unembeds = c.head(Gemma3ForConditionalGeneration=True, Gemma3Model=False)
  c.leave('vision_config', 'mm_tokens_per_image')
  text = c.inside('text_config')
  tied = text.only('tie_word_embeddings', c.only('tie_word_embeddings', True, False))
  found = gemma3_decoder(text, unembeds, tied)
  text.finish()
  name = lambda theirs: re.sub(r'^model\.', 'model.language_model.', theirs)
  return found._replace(
      keys=[k._replace(theirs=name(k.theirs)) for k in found.keys], spare=SPARE,
      copies={name(a): name(b) for a, b in found.copies.items()}, prefix='', older=OLDER)

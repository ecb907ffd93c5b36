"""Gemma 3, of 1B or the text part alone: five layers with a window for one without (Kamath et al. 2025, arXiv:2503.19786)."""
from aspects.nn.gemma3 import gemma3_decoder
from aspects.nn.huggingface import Config, Import


def gemma3_text(c: Config) -> Import:
  return gemma3_decoder(c, c.head(Gemma3ForCausalLM=True, Gemma3TextModel=False))

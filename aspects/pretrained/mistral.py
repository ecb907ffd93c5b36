"""Mistral 7B: Llama with grouped queries and, in its first version, a window (Jiang et al. 2023, arXiv:2310.06825)."""
from aspects.nn.decoders import decoder
from aspects.nn.huggingface import Config, Import


def mistral(c: Config) -> Import:
  return decoder(c, c.head(MistralForCausalLM=True, MistralModel=False), bias=False, epsilon=c('rms_norm_eps', 1e-6),
                 act=c('hidden_act', 'silu'), window=c('sliding_window', 4096) or 0, usual=dict(num_key_value_heads=8))

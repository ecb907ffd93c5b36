"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values (Yang et al. 2024, arXiv:2407.10671)."""
from aspects.nn.decoders import decoder, later_windows
from aspects.nn.huggingface import Config, Import


def qwen2(c: Config) -> Import:
  c.only('use_mrope', False)
  return decoder(c, c.head(Qwen2ForCausalLM=True, Qwen2Model=False), bias=True, epsilon=c('rms_norm_eps', 1e-6),
                 act=c('hidden_act', 'silu'), window=later_windows(c), usual=dict(num_key_value_heads=32))

"""Qwen3: Llama with a norm over each head of queries and keys (Yang et al. 2025, arXiv:2505.09388)."""
from aspects.nn.decoders import decoder, later_windows
from aspects.nn.huggingface import Config, Import


def qwen3(c: Config) -> Import:
  bias = c.only('attention_bias', False, True)
  return decoder(c, c.head(Qwen3ForCausalLM=True, Qwen3Model=False), bias=bias, out_bias=bias, qk_norm=True,
                 epsilon=c('rms_norm_eps', 1e-6), act=c('hidden_act', 'silu'), window=later_windows(c),
                 usual=dict(num_key_value_heads=32, head_dim=128))

"""LLaMA: Open and Efficient Foundation Language Models, and its successors 2 and 3 (Touvron et al. 2023, arXiv:2302.13971)."""
from aspects.nn.decoders import decoder
from aspects.nn.huggingface import Config, Import


def llama(c: Config) -> Import:
  bias = c.only('attention_bias', False, True)
  return decoder(c, c.head(LlamaForCausalLM=True, LlamaModel=False), bias=bias, out_bias=bias,
                 channel_bias=c.only('mlp_bias', False, True), epsilon=c('rms_norm_eps', 1e-6),
                 act=c('hidden_act', 'silu'))

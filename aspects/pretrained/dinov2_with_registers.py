"""Vision Transformers Need Registers: DINOv2 with tokens that have no position (Darcet et al. 2023, arXiv:2309.16588)."""
from aspects.nn.huggingface import Config, Import
from aspects.pretrained.dinov2 import body


def dinov2_with_registers(c: Config) -> Import:
  classifies = c.head(Dinov2WithRegistersForImageClassification=True, Dinov2WithRegistersModel=False)
  registers = c('num_register_tokens', 4)
  if registers < 1:
    raise ValueError(f'{c.where}: num_register_tokens is {registers}; supported: 1 or more')
  return body(c, 'dinov2_with_registers', classifies, 16, registers)

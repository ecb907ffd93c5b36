"""The tower of images of SigLIP in a directory of its own (Zhai et al. 2023, arXiv:2303.15343); see `siglip`."""
from aspects.nn.huggingface import Config, Import
from aspects.pretrained.siglip import of_vision


def siglip_vision_model(c: Config) -> Import:
  c.head(SiglipVisionModel=None)
  return of_vision(c)

"""The tower of texts of SigLIP in a directory of its own (Zhai et al. 2023, arXiv:2303.15343); see `siglip`."""
from aspects.nn.huggingface import Config, Import
from aspects.pretrained.siglip import of_text


def siglip_text_model(c: Config) -> Import:
  c.head(SiglipTextModel=None)
  return of_text(c)

"""The tower of texts of CLIP in a directory of its own (Radford et al. 2021, arXiv:2103.00020); see `clip`."""
from aspects.nn.huggingface import Config, Import
from aspects.pretrained.clip import of_text


def clip_text_model(c: Config) -> Import:
  projects = c.head(CLIPTextModel=False, CLIPTextModelWithProjection=True)
  return of_text(c, c('projection_dim', 512) if projects else None)

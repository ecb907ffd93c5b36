"""The tower of images of CLIP in a directory of its own (Radford et al. 2021, arXiv:2103.00020); see `clip`."""
from aspects.nn.huggingface import Config, Import
from aspects.pretrained.clip import of_vision


def clip_vision_model(c: Config) -> Import:
  projects = c.head(CLIPVisionModel=False, CLIPVisionModelWithProjection=True)
  return of_vision(c, c('projection_dim', 512) if projects else None)

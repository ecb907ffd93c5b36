"""A ConvNet for the 2020s: ConvNeXt (Liu et al. 2022, arXiv:2201.03545), as in transformers' `convnext`.

Pixels are tokens in reading order, of square images. `ConvNextModel` gives the norm of the mean of the last pixels."""
import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import
from aspects.nn.vision import backbone, pair, square

NORM = dict(name='layer', epsilon=1e-6)                # of all norms but the last
DEPTHWISE = keys.Form(lambda x: (x[:, 0].transpose(1, 2, 0),), lambda x: x.transpose(2, 0, 1)[:, None])   # [D, 1, s, s]


def convnext(c: Config) -> Import:
  classifies = c.head(ConvNextForImageClassification=True, ConvNextModel=False)
  backbone(c)
  widths, depths = c('hidden_sizes', [96, 192, 384, 768]), c('depths', [3, 3, 9, 3])
  if not len(widths) == len(depths) == c('num_stages', 4):
    raise ValueError(f'{c.where}: hidden_sizes {widths} and depths {depths} are not one of each for num_stages '
                     f'{c("num_stages", 4)} stages')
  size, scaled = square(c, 'patch_size', 4), c('layer_scale_init_value', 1e-6) > 0
  last = dict(name='layer', epsilon=c('layer_norm_eps', 1e-12))
  spec = dict(
      outputs=c.labels() if classifies else widths[-1], stages=tuple(zip(depths, widths)), norm=NORM, final_norm=False,
      embed=dict(name='stem', size=size, stride=size, padding=0, bias=True, norm=NORM, act='identity'),
      mixer=dict(name='depthwise', size=7, bias=True), placement=dict(name='chained'),
      channel=dict(name='mlp', ratio=4.0, act=activation(c, c('hidden_act', 'gelu'))),
      transition=dict(name='strided', norm=NORM, padding='VALID'),
      head=dict(name='classify' if classifies else 'embedding', norm=last))
  if scaled:
    spec['branch'] = dict(name='layer_scale')
  found = [keys.key('convnext.embeddings.patch_embeddings.weight', 'embedder/conv/kernel', keys.image),
           keys.key('convnext.embeddings.patch_embeddings.bias', 'embedder/conv/bias'),
           *keys.norm('convnext.embeddings.layernorm', 'embedder/normed')]
  for i, depth in enumerate(depths):
    stage = f'convnext.encoder.stages.{i}'
    if i:
      found += keys.norm(f'{stage}.downsampling_layer.0', f'transition_{i}/normed')
      found += [keys.key(f'{stage}.downsampling_layer.1.weight', f'transition_{i}/conv/kernel', keys.image),
                keys.key(f'{stage}.downsampling_layer.1.bias', f'transition_{i}/conv/bias')]
    found += keys.blocks(depth, lambda j, at, stage=stage: block(f'{stage}.layers.{j}', at, scaled), i)
  found += keys.norm('convnext.layernorm', 'head/pooled_norm')
  if classifies:
    found += keys.linear('classifier', 'head/logits_map')
  return Import(spec, found, jax.ShapeDtypeStruct((*pair(c, 'image_size', 224), c('num_channels', 3)), np.float32),
                'convnext.')


def block(theirs: str, at: str, scaled: bool):
  yield keys.key(f'{theirs}.dwconv.weight', f'{at}/mixer/kernel', DEPTHWISE)
  yield keys.key(f'{theirs}.dwconv.bias', f'{at}/mixer/bias')
  yield from keys.norm(f'{theirs}.layernorm', f'{at}/residual/channel_norm')
  yield from keys.linear(f'{theirs}.pwconv1', f'{at}/channel/in')
  yield from keys.linear(f'{theirs}.pwconv2', f'{at}/channel/out')
  if scaled:
    yield keys.key(f'{theirs}.layer_scale_parameter', f'{at}/residual/channel_branch/gain')

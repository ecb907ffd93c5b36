"""Deep Residual Learning for Image Recognition: ResNet (He et al. 2015, arXiv:1512.03385), as in transformers' `resnet`.

Pixels are tokens in reading order, of square images. Every residual unit is a layer; one that changes width or side is
a transition. Batch norms have the statistics of the checkpoint. `ResNetModel` gives the mean of the last pixels."""
import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import
from aspects.nn.vision import backbone

NORM = dict(name='aspects.nn.batch_norm:BatchNorm')


def resnet(c: Config) -> Import:
  classifies = c.head(ResNetForImageClassification=True, ResNetModel=False)
  backbone(c)
  stem, widths, depths = c('embedding_size', 64), c('hidden_sizes', [256, 512, 1024, 2048]), c('depths', [3, 4, 6, 3])
  if len(widths) != len(depths) or min(depths) < 1:
    raise ValueError(f'{c.where}: hidden_sizes {widths} and depths {depths} are not one of each for a stage')
  act, basic = activation(c, c('hidden_act', 'relu')), c.only('layer_type', 'bottleneck', 'basic') == 'basic'
  early = c.only('downsample_in_bottleneck', False, True)
  branch = dict(sizes=(3, 3), reduction=1) if basic else dict(sizes=(1, 3, 1), reduction=4)
  branch |= dict(norm=NORM, act='relu')                # hidden_act is that of the stem and of the sums
  strides = [2 if i or c.only('downsample_in_first_stage', False, True) else 1 for i in range(len(depths))]
  projects = [s != 1 or before != after for s, before, after in zip(strides, [stem, *widths], widths)]
  # Where the first unit changes nothing, it is a block, and its stage the one before the first transition.
  stages = [(depths[0], stem)] if not projects[0] else [(0, stem), (depths[0] - 1, widths[0])]
  stages += [(depth - 1, width) for depth, width in zip(depths[1:], widths[1:])]
  def moves(stride):
    return (stride, 1) if basic else (stride, 1, 1) if early else (1, stride, 1)
  transitions = tuple(dict(name='residual_unit', strides=moves(s), last=act, **branch)
                      for s, projected in zip(strides, projects) if projected)
  spec = dict(
      outputs=c.labels() if classifies else widths[-1], stages=tuple(stages), transition=transitions, final_norm=False,
      embed=dict(name='stem', size=7, stride=2, padding=3, pool=3, norm=NORM, act=act),
      mixer=dict(name='normed_convolutions', **branch), placement=dict(name='post_activation', act=act),
      head=dict(name='classify') if classifies else dict(name='embedding'))
  found = list(layer('resnet.embedder.embedder', 'embedder/conv', 'embedder/normed'))
  for i, depth in enumerate(depths):
    stage = i + projects[0]                            # of ours: one more stands before a first transition
    for j in range(depth):
      first = projects[i] and not j
      at = f'transition_{stage}/block' if first else f'stage_{stage}/block_{j - projects[i]}'
      inner = f'{at}/mixer' if first else f'{at}/mixer/convolutions'
      b = f'resnet.encoder.stages.{i}.layers.{j}'
      for k in range(len(branch['sizes'])):
        found += layer(f'{b}.layer.{k}', f'{inner}/conv_{k}', f'{inner}/norm_{k}')
      if first:
        found += layer(f'{b}.shortcut', f'{at}/conv_shortcut', f'{at}/norm_shortcut')
  if classifies:
    found += keys.linear('classifier.1', 'head/logits_map')
  return Import(spec, found, jax.ShapeDtypeStruct((224, 224, c('num_channels', 3)), np.float32), 'resnet.',
                (r'.*\.num_batches_tracked',))


def layer(theirs: str, conv: str, norm: str):
  """A convolution without bias and the batch norm behind it."""
  yield keys.key(f'{theirs}.convolution.weight', f'{conv}/kernel', keys.image)
  yield from keys.norm(f'{theirs}.normalization', norm)
  for name, ours in (('running_mean', 'mean'), ('running_var', 'var')):
    yield keys.key(f'{theirs}.normalization.{name}', f'{norm}/affine/{ours}', collection='batch_stats')

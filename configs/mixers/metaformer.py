"""MetaFormer: with few images the choice of the mixer matters less than the channel MLP or the residual connection.

    python -m experiments.claims run metaformer

Scales: claim (default; three minutes on one core), smoke (seconds), full (an accelerator).

That the range of four mixers is below the cost of an ablation is said by way of a margin between the two: all pairs of
mixers are closer, both ablations cost more. All networks have the parameters of one another within 2 % and the
operations within 5 %, by the width of the channel MLP; only without it there is nothing left to widen. Attention has
more operations a parameter than the others, so that both agree only beside a wide MLP: hence 18 x 16 units in it.

`no_residual` has its skips taken out and LayerScale left in. Taken out as well, the cost is lower: 0.14 of accuracy in
eight seeds from 1000 up at 300 steps, 0.11 at 600, which is about the range of the mixers. Four blocks can do without.
"""
from configs import common

MIXERS = dict(pool=dict(mixer=dict(name='pool', size=3), channel=dict(ratio=18.0)),
              attention=dict(mixer=dict(name='attention', heads=4), channel=dict(ratio=15.75)),
              spatial_mlp=dict(mixer=dict(name='token_mlp', hidden=8), channel=dict(ratio=17.5)),
              depthwise=dict(mixer=dict(name='depthwise', size=3), channel=dict(ratio=17.875)))
ABLATIONS = dict(no_channel=dict(channel=None), no_residual=dict(placement=dict(name='aspects.nn.chain:Chain')))
WIDE = dict(pool=6.0, attention=3.96875, spatial_mlp=5.96875, depthwise=5.96875)      # ratios at width 64

# metric: better, margin, smallest effect beyond it, where both come from: 24 seeds from 1000 up
MARGINS = dict(
    accuracy=('higher', .22, .045, 'margin: the middle between the range of the mixers, 0.10, and the lesser cost of '
              'an ablation, 0.35; eps: the largest sd of a difference of two mixers, both over 24 seeds from 1000 up'),
    nll=('lower', .6, .15, 'margin: the middle between the range of the mixers, 0.35, and the lesser cost of an '
         'ablation, 0.86; eps: the largest sd of a difference of two mixers, both over 24 seeds from 1000 up'))


def judged():
  """(assertions, controls) for either metric."""
  assertions, controls = {}, {}
  for metric, (better, margin, eps, reason) in MARGINS.items():
    common_fields = dict(metric=metric, better=better, reason=reason)
    for pair in ((a, b) for a in MIXERS for b in MIXERS if a < b):
      assertions['_'.join((metric, *pair))] = dict(kind='equivalent', arms=pair, eps=margin, **common_fields)
    costs = dict(kind='superior', tau=margin, eps=eps, **common_fields)
    for arm in ABLATIONS:
      assertions[f'{metric}_{arm}'] = dict(arms=('pool', arm), **costs)
    controls[f'{metric}_no_mixer'] = dict(arms=('pool', 'no_mixer'), must='not hold', **costs,
                                          text='to leave out the mixer does not cost as much')
  return assertions, controls


def get_config(scale=''):
  config = common.base()
  config.title = 'MetaFormer: the mixer and the skeleton around it'
  config.steps, config.batch, config.resplit = 400, 16, True
  config.task = dict(name='digits', train_size=300)
  config.net = dict(embed=dict(name='patches', size=2, class_token=False), head=dict(name='classify', pool='mean'),
                    mixer=dict(name='pool', size=3), channel=dict(name='mlp', ratio=18.0, act='relu'),
                    norm=dict(name='group', groups=1), placement=dict(name='pre'),
                    branch=dict(name='layer_scale', start=0.1), stack=dict(name='plain', scan=True), depth=4, width=16)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=1e-2, schedule='cosine',
                         warmup=20, clip=1.0, decay=0.05, objective=dict(name='cross_entropy'))
  config.evaluation.update(split='test', examples=0, batch=360, every=100)
  config.analysis.update(split='test', examples=32, batch=32, when=())
  config.arms = {name: dict(net=net) for name, net in {**MIXERS, **ABLATIONS, 'no_mixer': dict(mixer=None)}.items()}
  assertions, controls = judged()
  config.claim = common.claim(
      id='metaformer/1', component='mixers/pool',
      sentence='In a network of four blocks trained on 300 digits, no two of the mixers pooling, attention, spatial '
               'MLP and depthwise convolution, at equal budget, differ in test accuracy or loss by as much as the pool '
               'model loses without its channel MLPs or without its residual connections.',
      paper=dict(ref='Yu et al. 2021, arXiv:2111.11418', value=82.1, unit='% top-1 on ImageNet-1K', direction='higher',
                 comparable=False,
                 said='the skeleton around the mixer is what makes transformers and MLP-like models good: with pooling '
                      'in the place of attention it reaches 82.1 %, 0.3 points above DeiT-B and 1.1 above ResMLP-B24'),
      roles=dict(pool='ours', attention='baseline', spatial_mlp='baseline', depthwise='baseline', no_channel='ablation',
                 no_residual='ablation', no_mixer='control'),
      metrics=dict(
          accuracy=dict(source='training', variable='test_accuracy', reduce='last', unit='1', worst=0.,
                        long_name='test accuracy'),
          nll=dict(source='training', variable='test_nll', reduce='last', unit='nats', worst=2.303,
                   long_name='test loss')),
      assertions=assertions, controls=controls,
      budget=dict(arms=(*MIXERS, 'no_residual', 'no_mixer'), trials=1),
      sane=dict(arm='pool', metric='accuracy', band=(.7, 1.)), looks=(8, 16))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=4, task=dict(train_size=32), claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, batch=128, task=dict(train_size=None), claim=dict(looks=(8,)),
                net=dict(depth=12, width=64, channel=dict(ratio=6.0)),
                arms={name: dict(net=dict(channel=dict(ratio=ratio))) for name, ratio in WIDE.items()}))

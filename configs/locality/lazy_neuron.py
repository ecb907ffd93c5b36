"""The lazy neuron phenomenon: training leaves few ReLU units active, fewer the wider the layer (Li et al. 2022).

    python -m experiments.claims run lazy-neuron
"""
from configs import common


def mlp(width, act='relu', **change):
  density = dict(sites=('channel_pre.*',))
  return dict(net=dict(name='aspects.nn.perceptron:Perceptron', widths=(width,), act=act),
              measures=dict(density=density), **change)


def get_config(scale=''):
  config = common.base()
  config.title = 'The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers'
  config.steps, config.batch, config.resplit = 600, 64, True
  config.task = dict(name='digits', train_size=512)
  config.net = dict(embed=dict(name='patches', size=2), head=dict(name='classify'),
                    mixer=dict(name='attention', heads=4),
                    channel=dict(name='mlp', ratio=4.0, act='relu'), norm=dict(name='layer'),
                    placement=dict(name='pre'),
                    depth=1, width=32)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=3e-3, schedule='constant',
                         warmup=0,
                         clip=None, decay=0.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='train', examples=0, batch=512, every=100)
  config.analysis = dict(split='test', examples=0, batch=360, when=(0.0, 1.0), call=dict())
  config.measures = dict(density=dict(name='locality/density', sites=('channel_act.*',)))
  config.arms = dict(width_64=mlp(64), width_256=mlp(256), width_1024=mlp(1024),
                     random=mlp(256, task=dict(label_noise=0.9), steps=1500), transformer=dict(),
                     odd=mlp(256, act='tanh'))
  falls = dict(kind='superior', metric='change', better='lower', tau=0.0, eps=0.025,
               reason='5 % of the gap from half of the units, where training begins, to none')
  share = 'share of active units'
  config.claim = common.claim(
      id='lazy-neuron/1', component='locality/density',
      sentence='Training on digits leaves fewer ReLU units active than it began with, for true and for random labels, '
               'in a perceptron and in a transformer block, and the fewer the wider the layer.',
      paper=dict(ref='Li et al. 2022, arXiv:2210.06313', value=3.0, unit='% of units (T5-Base)', direction='lower',
                 said='3.0 % of the units are active in T5-Base, 6.3 % in ViT-B/16, also for random labels; larger '
                      'models are sparser.', comparable=False),
      roles=dict(width_64='anchor', width_256='ours', width_1024='anchor', random='ours', transformer='ours',
                 odd='control'),
      metrics=dict(
          accuracy=dict(source='training', variable='train_accuracy', reduce='last',
                        long_name='accuracy on its train split',
                        unit='share'),
          start=dict(source='density', variable='density', select=dict(step=0), reduce='mean', unit=share,
                     long_name='active units before training'),
          end=dict(source='density', variable='density', reduce='mean', long_name='active units after training',
                   unit=share),
          change=dict(source='density', variable='density', reduce=dict(site='mean', step='difference'), unit=share,
                      long_name='change of the active units over training')),
      assertions=dict(
          start=dict(kind='band', arms=('width_256',), metric='start', band=(0.45, 0.55),
                     text='half are active at first'),
          true=dict(arms=('width_256',), text='true labels: fewer are active after training', **falls),
          random=dict(arms=('random',), text='random labels: fewer, too', **falls),
          transformer=dict(arms=('transformer',), text='a transformer block: fewer, too', **falls),
          width=dict(kind='trend', arms=('width_64', 'width_256', 'width_1024'), order=(64.0, 256.0, 1024.0),
                     metric='end',
                     better='lower', tau=0.0, eps=0.25, text='the wider the layer, the fewer',
                     reason='a quarter of a rank correlation: one seed in four out of order')),
      controls=dict(
          odd=dict(arms=('odd',), must='not hold', **falls,
                   text='an odd nonlinearity has no positive side to be pushed down from')),
      budget=dict(waived='what is compared is a network with itself before training, and widths on purpose'),
      sane=dict(arm='width_256', metric='accuracy', band=(0.99, 1.0)))
  return common.scaled(config, scale, claim=dict(), smoke=dict(steps=10, claim=dict(looks=(2,), block=2),
                                                               arms=dict(random=dict(steps=10))), full=dict())

"""Representation bias: of labels that are learned equally well, the simpler one fills more of the representation.

    python -m experiments.claims run representation-bias

Scales: claim (default; a minute and a half on one core), smoke (seconds), full (an accelerator).
"""
from configs import common

SD_TWINS = 'one sd of the same difference between two copied bits: 0.072 over 56 seeds from 1000 up of the arm twins'


def gap(name, steps):
  """Share of the copied bit, the second label, minus that of the first, in the last hidden layer."""
  return dict(source='shares', variable='share', select=dict(site=-1), reduce=dict(**steps, factor='difference'),
              long_name=name, unit='share of variance', worst=-1.)


def get_config(scale=''):
  config = common.base()
  config.title = 'Representation bias: the variance that simple and hard labels explain'
  config.steps, config.batch, config.resplit = 800, 128, True
  # The label in question first, the bit that is copied second.
  config.task = dict(name='parities', labels=(2, 1), bits=16, train_size=8192, test_size=2048)
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(128, 64, 64), act='relu')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=1e-3, schedule='constant',
                         clip=None, objective=dict(name='binary'))
  config.evaluation.update(split='test', examples=0, batch=2048, every=200)
  config.analysis.update(split='test', examples=0, batch=2048, when=(0.0, 1.0))
  config.measures = dict(shares=dict(name='representations/variance_share', sites=('resid_post.*',), factors=2))
  config.arms = dict(xor=dict(), parity=dict(task=dict(labels=(3, 1))), twins=dict(task=dict(labels=(1, 1))))
  larger = dict(kind='superior', better='higher', tau=0.)
  learned = dict(kind='band', metric='accuracy', band=(.9975, 1.0001),
                 text='a mean of 0.9975 over two labels leaves neither below 0.995')
  config.claim = common.claim(
      id='representation-bias/1', component='representations/variance_share',
      sentence='In a perceptron that computes two labels of its input equally well, the share of the variance of the '
               'last hidden layer that a copied bit explains is larger than that of an XOR of two bits and of a '
               'parity of three, and the gap is larger for the parity than for XOR.',
      paper=dict(ref='Lampinen, Chan & Hermann 2024, arXiv:2405.05847',
                 said='features that are simpler to compute are represented more strongly than more complex ones, '
                      'even if all are learned equally well', value=None, unit=None, direction='higher',
                 comparable=False),
      roles=dict(xor='ours', parity='ours', twins='control'),
      metrics=dict(
          gap=gap('share of the copied bit minus share of the other label', {}),
          grown=gap('growth of that gap in training', dict(step='difference')),
          accuracy=dict(source='training', variable='test_accuracy', reduce='last', unit='1', worst=0.,
                        long_name='accuracy on fresh data, mean of two labels'),
          nll=dict(source='training', variable='test_nll', reduce='last', long_name='test loss of both labels',
                   unit='nats', worst=2.)),
      assertions=dict(
          xor=dict(**larger, arms=('xor',), metric='gap', eps=.07, reason=SD_TWINS),
          parity=dict(**larger, arms=('parity',), metric='gap', eps=.07, reason=SD_TWINS),
          harder=dict(**larger, arms=('parity', 'xor'), metric='gap', eps=.04,
                      reason='one sd of this difference: 0.041 over 56 seeds from 1000 up')),
      controls=dict(
          twins=dict(kind='equivalent', arms=('twins',), metric='gap', better='higher', eps=.07, reason=SD_TWINS,
                     text='two copied bits have equal shares'),
          grown_xor=dict(**larger, arms=('xor',), metric='grown', eps=.07, reason=SD_TWINS,
                         text='a copied bit has the larger share before training, too: the gap is not only that one'),
          grown_parity=dict(**larger, arms=('parity',), metric='grown', eps=.07, reason=SD_TWINS),
          learned_xor=dict(**learned, arms=('xor',)), learned_parity=dict(**learned, arms=('parity',))),
      budget=dict(arms=('xor', 'parity', 'twins'), trials=1),
      sane=dict(arm='twins', metric='accuracy', band=(.9975, 1.)))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=10, task=dict(train_size=256, test_size=64), evaluation=dict(every=5, batch=64),
                 analysis=dict(batch=64), claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, batch=512, net=dict(widths=(512, 256, 256)),
                task=dict(bits=18, train_size=2 ** 16, test_size=2 ** 14)))

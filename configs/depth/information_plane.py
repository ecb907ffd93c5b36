"""The information plane of a small tanh network: what the last hidden layers hold of the input falls as they train.

    python -m experiments.claims run information-plane

The optimiser is that of the authors' code (Adam at a constant rate, batches of 256), with its rate times its steps,
0.0004 x 112,000, in 8,000 steps.
"""
from configs import common

WHEN = (0.0, *(round(10 ** (-3.5 + 3.5 * k / 23), 6) for k in range(24)))          # log-spaced, and the start
# The largest activations of each layer at the end of runs 1000 to 1007 of this arm; edges do not move in training.
RELU = tuple((0.0, most) for most in (6.0, 9.0, 10.0, 25.0, 45.0))


def get_config(scale=''):
  config = common.base()
  config.title = 'Opening the Black Box of Deep Neural Networks via Information'
  config.steps, config.batch, config.resplit = 8000, 256, True
  config.task = dict(name='boolean', test_share=0.15)
  # 12-10-7-5-4-3-2: 12 inputs, five hidden layers, two outputs.
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(10, 7, 5, 4, 3), act='tanh')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=5.6e-3, schedule='constant',
                         clip=None, decay=0.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='train', examples=0, batch=3482, every=0)
  config.analysis.update(when=WHEN)
  config.checkpoint = dict(every=0, keep=1)
  config.measures = dict(plane=dict(name='depth/information_plane', bins=30, span=(-1.0, 1.0)))
  config.procedure = dict(name='information_plane', layers=2, batches=13)
  config.arms = dict(tanh=dict(), relu=dict(net=dict(act='relu'), measures=dict(plane=dict(span=RELU))))
  lost = 'of the most that it held of the input'
  falls = dict(kind='superior', arms=('tanh',), better='higher', tau=0.1, eps=0.05,
               reason='5 % of the way from nothing lost to all')
  snr = 'mean gradient over its deviation across batches, '
  config.claim = common.claim(
      id='information-plane/1', component='depth/information_plane',
      sentence='In a tanh network of 12-10-7-5-4-3-2 units on the 4,096 patterns, cut into 30 fixed bins, what each of '
               'the last two hidden layers holds of the input ends at least 10 % below its peak, and the peak comes '
               'in the first half of the training.',
      paper=dict(ref='Shwartz-Ziv & Tishby 2017, arXiv:1703.00810',
                 said='Most of the training is spent on compressing the input; the fitting that precedes it is short.',
                 value=None, unit=None, direction='higher', comparable=False),
      roles=dict(tanh='ours', relu='ablation'),
      metrics=dict(
          plane_least_drop=dict(long_name=f'share that the lesser loser of the last two layers lost {lost}',
                                unit='share', worst=0.0),
          plane_peak=dict(long_name='when the later of the last two layers holds most', unit='of the training',
                          worst=1.0),
          plane_drop=dict(long_name=f'share that the last two layers lost {lost}', unit='share', worst=0.0),
          plane_first_drop=dict(long_name=f'share that the first layer lost {lost}', unit='share', worst=1.0),
          accuracy=dict(long_name='accuracy on the train split', unit='1', worst=0.5),
          nll=dict(long_name='train loss', unit='nats', worst=0.693),
          snr_start=dict(long_name=snr + 'before training', unit='1'),
          snr_end=dict(long_name=snr + 'after it', unit='1')),
      assertions=dict(
          falls=dict(**falls, metric='plane_least_drop', text='both of the last two layers lose a tenth of the peak'),
          early=dict(kind='superior', arms=('tanh',), metric='plane_peak', better='lower', tau=0.5, eps=0.05,
                     reason='5 % of the training', text='both peaks lie in the first half')),
      controls=dict(
          first=dict(**falls, metric='plane_first_drop', must='not hold',
                     text='the same bins find no such loss in the first and widest layer')),
      budget=dict(arms=('tanh', 'relu'), trials=1), sane=dict(arm='tanh', metric='accuracy', band=(0.95, 1.0)),
      looks=(16, 32), block=16)
  return common.scaled(config, scale, claim=dict(),
                       smoke=dict(steps=20, claim=dict(looks=(2,), block=2)),
                       full=dict(steps=112000, learning=dict(learning_rate=4e-4)))

"""Make Deep Networks Shallow Again: the blocks of a residual network side by side instead of one after another.

    python -m experiments.claims run parallel-resnet
"""
from configs import common

SIDE = dict(stack=dict(name='parallel'))
NOISE = 'one sd of the paired difference of equal runs on digits, by the noise bank'


def get_config(scale=''):
  config = common.base()
  config.title = 'Make Deep Networks Shallow Again'
  config.steps, config.batch, config.resplit = 300, 64, True
  config.task = dict(name='digits')
  config.net = dict(embed=dict(name='vector'), head=dict(name='classify'), mixer=None,
                    channel=dict(name='mlp', ratio=1.0, act='relu'), branch=dict(name='depth_power', power=0.5),
                    norm=dict(name='layer'), placement=dict(name='pre'), stack=dict(name='plain', scan=True),
                    depth=16, width=64)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=1e-3, schedule='cosine', warmup=20,
                         clip=1.0, decay=0.01, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=0, batch=360, every=50)
  config.analysis = dict(split='test', examples=64, batch=64, when=(), call=dict())
  hard = dict(task=dict(name='permutation_power', symbols=6, hops=2), steps=400, batch=128,
              learning=dict(learning_rate=3e-3), net=dict(depth=6, width=48))
  side = dict(net=SIDE)
  config.arms = dict(sequential=dict(), parallel=side,
                     sequential_4=dict(net=dict(depth=4)), parallel_4=dict(net=dict(depth=4, **SIDE)),
                     hard_sequential=hard, hard_parallel={**hard, 'net': dict(depth=6, width=48, **SIDE)})
  config.claim = common.claim(
      id='parallel-resnet/1', component='stacks/parallel',
      sentence='On digits, 4 and 16 residual blocks side by side reach the test loss of the same blocks in sequence; '
               'on a task that asks for one step after another they do not.',
      paper=dict(ref='Bermeitinger, Hrycej & Handschuh 2023, arXiv:2309.08414', value=None, unit=None,
                 direction='equal',
                 said='Similar training and validation loss for both layouts over 6912 configurations on MNIST and '
                      'CIFAR10.', comparable=False),
      roles=dict(sequential='baseline', parallel='ours', sequential_4='baseline', parallel_4='ours',
                 hard_sequential='control', hard_parallel='control'),
      metrics=dict(nll=dict(source='training', variable='test_nll', reduce='last', long_name='test loss', unit='nats',
                            worst=2.303),
                   accuracy=dict(source='training', variable='test_accuracy', reduce='last', unit='share',
                                 long_name='test accuracy', worst=0.1)),
      assertions=dict(
          deep=dict(kind='equivalent', arms=('parallel', 'sequential'), metric='nll', better='lower', eps=0.043,
                    reason=NOISE, text='sixteen blocks: equal test loss'),
          shallow=dict(kind='equivalent', arms=('parallel_4', 'sequential_4'), metric='nll', better='lower', eps=0.043,
                       reason=NOISE, text='four blocks: equal test loss'),
          accuracy=dict(kind='equivalent', arms=('parallel', 'sequential'), metric='accuracy', better='higher',
                        eps=0.01,
                        reason='one point, as the catalogue of the claim asks', text='sixteen blocks: equal accuracy')),
      controls=dict(
          hard=dict(kind='superior', arms=('hard_sequential', 'hard_parallel'), metric='accuracy', better='higher',
                    tau=0.1, eps=0.05, reason='ten points and half as many again',
                    text='a task that needs depth tells the layouts apart')),
      budget=dict(arms=('parallel', 'sequential'), trials=1),
      sane=dict(arm='sequential', metric='accuracy', band=(0.95, 1.0)))
  return common.scaled(config, scale, claim=dict(), smoke=dict(
      steps=10, net=dict(depth=2, width=16), evaluation=dict(every=5), claim=dict(looks=(2,), block=2)), full=dict())

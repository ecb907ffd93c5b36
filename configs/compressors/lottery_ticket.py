"""The lottery ticket hypothesis on digits: what is left of a perceptron after rounds of pruning, from its own start.

    python -m experiments.claims run lottery-ticket --scale claim
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'The lottery ticket hypothesis'
  config.steps, config.batch, config.resplit = 400, 60, True
  config.task = dict(name='digits')
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(128, 64), act='relu')
  config.learning = dict(name='masked', optimizer=dict(name='adam'), learning_rate=6e-3, schedule='constant', clip=None,
                         objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=0, batch=360, every=20)
  config.analysis = dict(split='test', examples=0, batch=360, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  # 0.8^8, 0.8^10 and 0.8^14: 17, 11 and 4 % of the weights.
  config.procedure = dict(name='lottery_ticket', compressor=dict(name='magnitude'), learns=True, redraw=False, keep=0.8,
                          rounds=(8, 10, 14), validation=0.2)
  config.arms = dict(
      ticket=dict(), dense=dict(procedure=dict(compressor=None)), redrawn=dict(procedure=dict(redraw=True)),
      random=dict(procedure=dict(compressor=dict(name='random_mask'), learns=False)))
  left = lambda p: f'with {p} % of the weights'
  metrics = dict()
  for p in (17, 11, 4):
    metrics |= {
        f'accuracy_{p}': dict(long_name=f'test accuracy {left(p)}', unit='1', worst=0.0),
        f'nll_{p}': dict(long_name=f'test loss {left(p)}', unit='nats', worst=2.303),
        f'stop_{p}': dict(long_name=f'when the validation loss is least {left(p)}', unit='of the training', worst=1.0),
        f'stop_accuracy_{p}': dict(long_name=f'test accuracy at that step {left(p)}', unit='1', worst=0.0),
        f'stop_nll_{p}': dict(long_name=f'test loss at that step {left(p)}', unit='nats', worst=2.303)}
  half = 'the half point of the claim'
  late = 'a tenth of the training; one sd of the difference of two dense networks is 0.25, 24 seeds from 1000 on'
  spread = 'one sd of the difference of two dense networks, 24 seeds from 1000 on: 0.010'
  as_good = lambda p: dict(kind='noninferior', arms=('ticket', 'dense'), metric=f'accuracy_{p}', better='higher',
                           eps=0.005, reason=half, text=f'{p} % of the weights cost at most half a point')
  as_soon = lambda p: dict(kind='noninferior', arms=('ticket', 'dense'), metric=f'stop_{p}', better='lower', eps=0.1,
                           reason=late, text=f'{p} % of the weights learn no slower')
  config.claim = common.claim(
      id='lottery-ticket/1', component='compressors/magnitude',
      sentence='With 17 and 11 % of its weights, chosen in rounds and put back to where they started, a perceptron '
               'reaches the accuracy of the dense one to half a point and its least validation loss no later; from '
               'other starts it is later, with 4 % also less accurate, and random masks are worst.',
      paper=dict(ref='Frankle & Carbin 2018, arXiv:1803.03635',
                 said='Winning tickets of less than 10 to 20 % of the weights match the accuracy of the dense '
                      'network in at most as many iterations; from another initialisation they learn slower and worse.',
                 value=None, unit=None, direction='equal', comparable=False),
      roles=dict(ticket='ours', dense='baseline', redrawn='control', random='control'), metrics=metrics,
      assertions=dict(
          accurate_17=as_good(17), accurate_11=as_good(11), soon_17=as_soon(17), soon_11=as_soon(11),
          start_soon=dict(kind='superior', arms=('ticket', 'redrawn'), metric='stop_17', better='lower', tau=0.0,
                          eps=0.1, reason=late, text='the same mask from another start learns slower'),
          start_accurate=dict(kind='superior', arms=('ticket', 'redrawn'), metric='accuracy_4', better='higher',
                              tau=0.0, eps=0.01, reason=spread, text='with 4 % it also ends less accurate'),
          random_worst=dict(kind='superior', arms=('redrawn', 'random'), metric='accuracy_4', better='higher', tau=0.0,
                            eps=0.01, reason=spread, text='with 4 % at random places it is worst')),
      controls=dict(
          random=dict(kind='noninferior', arms=('random', 'dense'), metric='accuracy_11', better='higher', eps=0.005,
                      reason=half, must='not hold', text='random masks do not match the dense network'),
          redrawn=dict(kind='noninferior', arms=('redrawn', 'dense'), metric='stop_17', better='lower', eps=0.1,
                       reason=late, must='not hold', text='other starts are not as soon as the dense network')),
      budget=dict(waived='A ticket has fewer weights by design and is found by training several times; each of these '
                         'trainings has the steps of the dense one.'),
      sane=dict(arm='dense', metric='accuracy_17', band=(0.95, 1.0)),
      looks=(16, 32), block=16)
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=4, net=dict(widths=(16, 12)), evaluation=dict(every=2), claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, net=dict(widths=(300, 100)), learning=dict(learning_rate=1.2e-3),
                evaluation=dict(every=100)))

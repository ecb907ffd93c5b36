"""Alignment quality index: it falls in a network whose classes are spread inside and whose accuracy is kept.

    python -m experiments.claims run aqi
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Alignment quality index'
  config.steps, config.batch, config.resplit = 400, 128, True
  config.task = dict(name='digits')
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(64,) * 6, act='tanh')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='cosine', warmup=20,
                         clip=1.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=0, batch=360, every=0)
  config.analysis = dict(split='test', examples=0, batch=360, when=(1.0,), call=dict())
  config.measures = dict(aqi=dict(name='representations/aqi', sites=('resid_post.*',), size=64))
  config.checkpoint = dict(every=0, keep=1)
  # Layer 4, counted from 1.
  config.procedure = dict(name='aqi', weight=0.1, layer=3, steps=300, gamma=0.5)
  config.arms = dict(damaged=dict(), kept=dict(procedure=dict(weight=0.0)))
  twentieth = '5 % of the range of the index'
  config.claim = common.claim(
      id='aqi/1', component='representations/aqi',
      sentence='When a digits perceptron of six layers is trained on to spread its classes at the fourth, at the cost '
               'of at most one point of accuracy, the index of that layer falls, and by more than without the damage.',
      paper=dict(ref='Borah et al. 2025, arXiv:2506.13901',
                 said='The separation of clusters inside shows damage that outputs do not.', value=None, unit=None,
                 direction='lower', comparable=False),
      roles=dict(damaged='ours', kept='baseline'),
      metrics=dict(
          drop=dict(long_name='fall of the index at the damaged layer', unit='of the range', worst=-1.0),
          drop_after=dict(long_name='fall of the index at the last layer', unit='of the range', worst=-1.0),
          ranked=dict(long_name='networks in which the index falls', unit='1', worst=0.0),
          ch_ratio=dict(long_name='Calinski-Harabasz index at the layer, damaged over trained', unit='1'),
          xb_ratio=dict(long_name='Xie-Beni index at the layer, damaged over trained', unit='1'),
          accuracy=dict(long_name='test accuracy before', unit='1', worst=0.0),
          accuracy_change=dict(long_name='change of test accuracy', unit='1', worst=-1.0),
          confidence_drop=dict(long_name='fall of the mean largest probability', unit='1', worst=1.0),
          confidence_ranked=dict(long_name='networks in which confidence falls', unit='1', worst=1.0)),
      assertions=dict(
          falls=dict(kind='superior', arms=('damaged',), metric='drop', better='higher', tau=0.0, eps=0.05,
                     reason=twentieth, text='the index of the damaged layer falls'),
          by_damage=dict(kind='superior', arms=('damaged', 'kept'), metric='drop', better='higher', tau=0.0, eps=0.05,
                         reason=twentieth, text='by more than when training goes on as before'),
          hidden=dict(kind='noninferior', arms=('damaged',), metric='accuracy_change', better='higher', eps=0.01,
                      reason='the one point of the claim', text='accuracy does not fall by a point')),
      controls=dict(
          undamaged=dict(kind='superior', arms=('kept',), metric='drop', better='higher', tau=0.0, eps=0.05,
                         reason=twentieth, must='not hold', text='without damage the index does not fall'),
          confidence=dict(kind='superior', arms=('damaged',), metric='confidence_ranked', better='higher', tau=0.5,
                          eps=0.1, reason='one network in ten', must='not hold',
                          text='confidence does not tell the damaged network')),
      budget=dict(arms=('damaged', 'kept'), trials=1),
      sane=dict(arm='kept', metric='accuracy', band=(0.93, 1.0)), looks=(8, 16, 32), block=16)
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=20, net=dict(widths=(16, 12, 12, 12)), procedure=dict(steps=10),
                 claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, net=dict(widths=(512,) * 6), procedure=dict(steps=5000)))

"""Layer identification: linear CKA finds the same layer of another network far more often than PWCCA does.

    python -m experiments.claims run layer-identification
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Layer identification'
  config.steps, config.batch = 500, 64
  config.task = dict(name='digits')
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(96,) * 8, act='tanh')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=1e-3, schedule='cosine', warmup=20,
                         clip=1.0, decay=1e-4, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=0, batch=360, every=0)
  config.analysis = dict(split='test', examples=0, batch=360, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='layer_identification', networks=10, site='resid_post.*')
  config.arms = dict(trained=dict(), untrained=dict(steps=0))
  share = lambda name: dict(long_name=f'share of layers that {name} identifies', unit='1', worst=0.0)
  config.claim = common.claim(
      id='layer-identification/1', component='correlations/cka',
      sentence='Of the layers of ten perceptrons that differ in their start alone, debiased linear CKA identifies more '
               'than half in each other network, and more than PWCCA does; before training it identifies few.',
      paper=dict(ref='Kornblith et al. 2019, arXiv:1905.00414',
                 said='Among ten convolutional networks of ten layers linear CKA identifies 99.3 % of the layers and '
                      'PWCCA 11.1 %.', value=88.2, unit='points', direction='higher', comparable=False),
      roles=dict(trained='ours', untrained='control'),
      metrics=dict(cka=share('debiased linear CKA'), cka_gretton=share('biased linear CKA'), pwcca=share('PWCCA'),
                   svcca=share('SVCCA'), cca=share('mean squared CCA'),
                   advantage=dict(long_name='share that CKA identifies, minus that of PWCCA', unit='1', worst=0.0),
                   cka_shuffled=dict(long_name='share that CKA identifies with the examples of each network shuffled',
                                     unit='1', worst=1.0),
                   accuracy=dict(long_name='test accuracy, mean of the networks', unit='1', worst=0.0)),
      assertions=dict(
          better=dict(kind='superior', arms=('trained',), metric='advantage', better='higher', tau=0.0, eps=0.04,
                      reason='5 % of the gap from one layer in eight to all', text='CKA identifies more than PWCCA'),
          high=dict(kind='superior', arms=('trained',), metric='cka', better='higher', tau=0.5, eps=0.04,
                    reason='as above', text='CKA identifies more than half, four times what chance does')),
      controls=dict(
          untrained=dict(kind='superior', arms=('untrained',), metric='cka', better='higher', tau=0.5, eps=0.04,
                         reason='as for the claim', must='not hold', text='untrained networks are not identified'),
          learned=dict(kind='superior', arms=('trained', 'untrained'), metric='cka', better='higher', tau=0.0, eps=0.04,
                       reason='as for the claim', text='what is identified was learned'),
          shuffled=dict(kind='superior', arms=('trained',), metric='cka_shuffled', better='higher', tau=0.25, eps=0.04,
                        reason='as for the claim', must='not hold',
                        text='without examples in common no layer is identified')),
      budget=dict(waived='the arms are the same networks before and after training'),
      sane=dict(arm='trained', metric='accuracy', band=(0.93, 1.0)),
      # Eight groups are eighty networks and 26,000 pairs of layers for each index; a second look would double that.
      looks=(8,), block=8)
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=10, net=dict(widths=(12, 12, 12)), procedure=dict(networks=3), claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, net=dict(widths=(512,) * 8)))

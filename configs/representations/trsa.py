"""Topological RSA: geo-topological distances identify layers as well as distances do, and better under noise.

    python -m experiments.claims run trsa

Scales: claim (default), smoke (seconds), full (wide and long).
"""
from configs import common

GAP = '5 % of the gap from chance, one layer in four, to all'


def get_config(scale=''):
  config = common.base()
  config.title = 'The Topology and Geometry of Neural Representations'
  config.steps, config.batch = 400, 64
  config.task = dict(name='digits')
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(64,) * 4, act='relu')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='cosine',
                         objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=0, batch=360, every=0)
  config.analysis = dict(split='test', examples=0, batch=360, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='trsa', networks=6, site='resid_post.*', stimuli=100, units=20, snr=1.0, lower=0.2,
                          upper=0.8, draws=4)
  config.arms = dict(trained=dict())
  share = lambda name: dict(long_name=f'share of layers identified by {name}', unit='1', worst=0.0)
  gain = lambda about: dict(long_name=f'share identified by geo-topological distances less that by distances, {about}',
                            unit='1', worst=-1.0)
  config.claim = common.claim(
      id='trsa/1', component='representations/trsa',
      sentence='With thresholds at the 20 % and 80 % quantiles, geo-topological distances of twenty units identify the '
               'layers of six perceptrons as well as distances do, and better with noise of the variance of the units.',
      paper=dict(ref='Lin & Kriegeskorte 2023, arXiv:2309.11028', value=None, unit=None, direction='higher',
                 said='Topology-sensitive statistics stay sensitive to the identity of layers and regions and are more '
                      'robust to noise and to differences between individuals.', comparable=False),
      roles=dict(trained='ours'),
      metrics=dict(gain_clean=gain('no noise'), gain_noisy=gain('noise'),
                   **{f'{kind}_{form}': share(f'{name}, {about}') for kind, about in
                      (('clean', 'no noise'), ('noisy', 'noise')) for form, name in
                      (('rdm', 'distances'), ('rgtm', 'geo-topological distances'), ('rgdm', 'geodesic distances'))},
                   shuffled=dict(long_name='share identified by geo-topological distances, stimuli shuffled', unit='1',
                                 worst=1.0),
                   accuracy=dict(long_name='test accuracy, mean of the networks', unit='1', worst=0.0)),
      assertions=dict(
          sensitive=dict(kind='noninferior', arms=('trained',), metric='gain_clean', better='higher', eps=0.0375,
                         reason=GAP, text='no worse without noise'),
          robust=dict(kind='superior', arms=('trained',), metric='gain_noisy', better='higher', tau=0.0, eps=0.0375,
                      reason=GAP, text='better with noise')),
      controls=dict(
          shuffled=dict(kind='superior', arms=('trained',), metric='shuffled', better='higher', tau=0.5, eps=0.0375,
                        reason=GAP, must='not hold', text='without common stimuli half of the layers are identified'),
          identified=dict(kind='superior', arms=('trained',), metric='clean_rdm', better='higher', tau=0.25, eps=0.0375,
                          reason=GAP, text='distances identify more layers than chance does')),
      budget=dict(waived='one arm: the same networks, stimuli, units and noise for every kind of matrix'),
      sane=dict(arm='trained', metric='accuracy', band=(0.93, 1.0)))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=10, net=dict(widths=(12, 12, 12)), procedure=dict(networks=3, stimuli=20, units=6, draws=1),
                 claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, net=dict(widths=(512,) * 8)))

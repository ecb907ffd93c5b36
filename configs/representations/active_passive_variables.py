"""Active and passive variables: what mean representations correlate more than sampled ones is due to passive latents.

    python -m experiments.claims run active-passive-variables
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Be More Active!'
  config.steps, config.batch, config.resplit = 3000, 128, True
  config.task = dict(name='digits')
  config.net = dict(name='aspects.nn.autoencoder:Autoencoder', latents=10, widths=(128,), act='relu')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=1e-3, schedule='cosine', warmup=20,
                         clip=None, objective=dict(name='aspects.nn.autoencoder:Elbo', beta=1.0, deviation=0.25))
  config.evaluation = dict(split='test', examples=0, batch=360, every=0)
  config.analysis = dict(split='train', examples=0, batch=512, when=(1.0,), call=dict())
  config.measures = dict(activity=dict(name='representations/active_passive_variables', lo=0.5, hi=0.9))
  config.checkpoint = dict(every=0, keep=1)
  beta = lambda value: dict(learning=dict(objective=dict(beta=value)))
  config.arms = dict(beta_4=beta(4.0), beta_8=beta(8.0), beta_1=dict())
  metric = lambda variable, long_name, unit='1', select={}, **more: dict(
      source='activity', variable=variable, select=select, long_name=long_name, unit=unit, **more)
  pairs = dict(reduce=dict(representation='difference', subset='mean'))
  better = lambda arm, metric, eps, reason, tau=0.0, **more: dict(
      kind='superior', arms=(arm,), metric=metric, better='higher', tau=tau, eps=eps, reason=reason, **more)
  assertions, controls = dict(), dict()
  for name in ('4', '8'):
    arm = f'beta_{name}'
    assertions |= {
        f'gap_{name}': better(arm, 'gap', 0.05, 'a twentieth of a nat; independent latents have none',
                              text='the mean representation has the larger total correlation'),
        f'shrinks_{name}': better(arm, 'shrinkage', 0.05, '5 % of the whole gap', tau=0.5,
                                  text='without passive latents at least half of the gap is gone'),
        f'passive_{name}': dict(kind='superior', arms=(arm,), metric='passive_pairs', better='lower', tau=0.0, eps=0.02,
                                reason='the correlation of two means of independent noise over 1,437 examples',
                                text='passive latents correlate more in the mean than in the sampled representation')}
    controls[f'random_{name}'] = better(arm, 'excess', 0.05, '5 % of the whole gap', must='hold',
                                        text='as many random others take away less of the gap')
  config.claim = common.claim(
      id='active-passive-variables/2', component='representations/active_passive_variables',
      sentence='In variational autoencoders of digits with at least two passive latents the total correlation of the '
               'mean representation is above that of the sampled one, and at least half of the difference goes with '
               'the passive latents, more than with as many random others.',
      paper=dict(ref='Bonheme & Grzes 2021, arXiv:2109.12679',
                 said='Passive variables are correlated with others in mean representations and not in sampled ones, '
                      'and account for the difference between the two.', value=None, unit=None, direction='higher',
                 comparable=False),
      roles=dict(beta_4='ours', beta_8='ours', beta_1='ablation'),
      metrics=dict(
          gap=metric('gap', 'total correlation, mean minus sampled', 'nats', dict(subset=0)),
          shrinkage=metric('shrinkage', 'share of the gap that goes without passive latents'),
          random=metric('null_shrinkage', 'share of the gap that goes without random others'),
          excess=metric('shrinkage_excess', 'the first share minus the second'),
          # In the order of the axis the sampled representation is the last.
          passive_pairs=metric('pair_correlation', 'absolute correlation of passive latents, sampled minus mean', '1',
                               dict(subset=(2, 3)), **pairs),
          passive=metric('count', 'passive latents', 'latents', dict(subset=2)),
          active=metric('count', 'active latents', 'latents', dict(subset=1)),
          nll=dict(source='training', variable='test_nll', reduce='last', long_name='test loss of the reconstruction',
                   unit='nats')),
      assertions=assertions, controls=controls,
      budget=dict(arms=('beta_4', 'beta_8', 'beta_1'), trials=1),
      sane=dict(arm='beta_1', metric='nll', band=(2.0, 20.0)), looks=(8, 16), block=16,
      amends='active-passive-variables/1')
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=20, net=dict(latents=6, widths=(16,)), task=dict(train_size=128),
                 claim=dict(looks=(2,), block=2)),
      full=dict(steps=100000, net=dict(widths=(512, 512))))

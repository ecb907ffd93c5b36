"""Residual expansion: a tower explodes with depth unless scaled, and is the sum over its paths.

    python -m experiments.claims run residual-expansion    # a minute on one core

Scales: claim (default), smoke (seconds), full (width 512, up to 256 modules).
"""
from configs import common

PRODUCTS = 'an inner product of 64 terms rounds by at most as many units'


def get_config(scale=''):
  config = common.theory()
  config.title = 'On residual network depth'
  config.procedure = dict(name='residual_expansion', width=64, depths=(4, 8, 16, 32, 64), scaling=-1.0, expanded=16,
                          strengths=(0.05, 0.09, 0.16, 0.28, 0.5), activation='tanh', order=2, linear=6, paths='all')
  config.arms = dict(inverse=dict(), root=dict(procedure=dict(scaling=-0.5)),
                     unscaled=dict(procedure=dict(scaling=0.0)),
                     first_order=dict(procedure=dict(order=1)), short=dict(procedure=dict(paths='short')),
                     reversed=dict(procedure=dict(paths='reversed')))
  flat = lambda arm: dict(kind='band', arms=(arm,), metric='growth', band=(-0.01, 0.01),
                          text='scaled modules leave the size of the stream alone, however many')
  exact = lambda control: dict(kind='identity', arms=('inverse', control), metric='expansion', c=64.0, reason=PRODUCTS,
                               text='the sum over all paths of linear modules is the tower')
  config.claim = common.claim(
      id='residual-expansion/1', component='experiments/residual_expansion',
      sentence='The stream of a random residual tower grows by more than 0.2 nats a module at lam = 1 and by less '
               'than 0.01 at lam = n^-1/2 and 1/n; the second-order expansion of a smooth tower errs as lam cubed; '
               'for linear modules the sum over all 2^n paths is the tower up to rounding.',
      paper=dict(ref='Dherin & Munn 2025, arXiv:2510.03470', comparable=False, value=None, unit=None, direction='band',
                 said='A residual tower is an ensemble of its paths, hierarchically by their length; their number '
                      'makes the output explode, and scaling each module tames it.'),
      roles=dict(inverse='ours', root='ours', unscaled='baseline', first_order='control', short='control',
                 reversed='control'),
      metrics=dict(
          growth=dict(long_name='growth of the stream with depth', unit='nats per module'),
          order_slope=dict(long_name='power of c in the error of the expansion', unit='1'),
          expansion=dict(long_name='difference of the sum over paths and the tower', unit='bounds')),
      assertions=dict(
          explodes=dict(kind='superior', arms=('unscaled',), metric='growth', better='higher', tau=0.2, eps=0.07,
                        reason='half of what lies between 0.2 and log(2) / 2, the growth of the mean square',
                        text='unscaled modules multiply the stream by a factor each'),
          root_is_flat=flat('root'), inverse_is_flat=flat('inverse'),
          cubic=dict(kind='band', arms=('inverse',), metric='order_slope', band=(2.7, 3.3),
                     text='what the first two orders leave out is of the third'),
          all_paths=exact('short'), in_order=exact('reversed')),
      controls=dict(quadratic=dict(kind='band', arms=('first_order',), metric='order_slope', band=(1.7, 2.3),
                                   text='the first order alone errs as lam squared')),
      budget=dict(waived='nothing is trained or tuned'),
      sane=dict(arm='unscaled', metric='growth', band=(0.0, 1.0)))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(procedure=dict(width=8, depths=(2, 4, 8), expanded=4, linear=3, strengths=(0.1, 0.2, 0.4))),
      full=dict(procedure=dict(width=512, depths=(16, 32, 64, 128, 256), expanded=64, linear=8),
                claim=dict(assertions=dict(all_paths=dict(c=512.0), in_order=dict(c=512.0)))))

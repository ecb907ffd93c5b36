"""Peri-LN: a norm on what a sublayer writes, beside the one on what it reads (Kim et al. 2025).

    python -m experiments.claims run peri-ln
"""
from configs import common

PERI = dict(net=dict(placement=dict(name='peri')))
TWICE = dict(net=dict(placement=dict(name='twice_pre')))
FAST = dict(learning=dict(learning_rate=3e-2))         # the highest of 1e-2, 3e-2, 1e-1 at which pre-norm still trains


def get_config(scale=''):
  config = common.base()
  config.title = 'Peri-LN: Revisiting Normalization Layer in the Transformer Architecture'
  config.steps, config.batch = 200, 4
  config.task = dict(name='stdlib_text', length=32, max_bytes=1_000_000)
  config.net = dict(embed=dict(name='tokens', vocab=256, length=32), head=dict(name='unembed'),
                    mixer=dict(name='attention', heads=4, causal=True), channel=dict(name='mlp', ratio=2.0, act='gelu'),
                    norm=dict(name='rms'), placement=dict(name='pre'), stack=dict(name='plain', scan=True),
                    depth=12, width=64)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='constant',
                         warmup=10,
                         clip=None, decay=0.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=8, batch=8, every=5)
  config.analysis = dict(split='test', examples=128, batch=64, when=(1.0,), call=dict())
  config.measures = dict(stream=dict(name='depth/stream'))
  config.arms = dict(pre=dict(), peri=PERI, pre_fast=FAST, peri_fast={**PERI, **FAST}, twice_fast={**TWICE, **FAST})
  calmer = dict(kind='superior', metric='peak', better='lower', tau=0.0, eps=0.5,
                reason='one sd of the paired difference on three tuning seeds (0.26 to 0.95), rounded')
  config.claim = common.claim(
      id='peri-ln/1', component='placements/peri',
      sentence='At a usual and at a high learning rate, a norm on what each sublayer writes leaves smaller massive '
               'activations in the last block of a language model than pre-norm, and at the high rate a steadier '
               'gradient.',
      paper=dict(ref='Kim et al. 2025, arXiv:2502.02732', value=None, unit=None, direction='lower', comparable=False,
                 said='Up to 3.2B parameters: balanced growth of variance, fewer massive activations and '
                      'gradient spikes.'),
      roles=dict(pre='baseline', peri='ours', pre_fast='baseline', peri_fast='ours', twice_fast='control'),
      metrics=dict(
          nll=dict(source='training', variable='test_nll', reduce='last', long_name='test loss', unit='nats',
                   worst=5.545),
          peak=dict(source='stream', variable='peak', select=dict(site=-1), long_name='peak of the stream, last block',
                    unit='largest / rms'),
          unsteady=dict(source='training', variable='train_gradient_norm', reduce='cv', unit='sd / mean over training',
                        long_name='variation of the gradient norm')),
      assertions=dict(
          usual=dict(arms=('peri', 'pre'), text='usual rate: smaller massive activations', **calmer),
          high=dict(arms=('peri_fast', 'pre_fast'), text='high rate: smaller massive activations', **calmer),
          steady=dict(kind='superior', arms=('peri_fast', 'pre_fast'), metric='unsteady', better='lower', tau=0.0,
                      eps=0.1,
                      reason='a tenth of the mean norm', text='high rate: a steadier gradient')),
      controls=dict(
          twice=dict(arms=('twice_fast', 'pre_fast'), must='not hold', text='both norms in front of the sublayer bound '
                     'nothing', **calmer)),
      budget=dict(arms=('pre', 'peri', 'pre_fast', 'peri_fast', 'twice_fast'), trials=1),
      sane=dict(arm='pre', metric='nll', band=(1.5, 3.5)), looks=(8, 16))
  return common.scaled(config, scale, claim=dict(),
                       smoke=dict(steps=10, net=dict(depth=2, width=16), claim=dict(looks=(2,), block=2),
                                  evaluation=dict(examples=16, batch=16), analysis=dict(examples=16, batch=16)),
                       full=dict(steps=20000, batch=256, net=dict(depth=24, width=512), task=dict(length=256),
                                 evaluation=dict(every=50), claim=dict(looks=(8,))))

"""Statistical depth of text embeddings: the test is calibrated if reference texts leave themselves out, and has power.

    python -m experiments.claims run tte-depth

Scales: claim (default), smoke (seconds), full (a larger language model).
"""
from configs import common

DOUBLE = 'a factor of two in p'


def get_config(scale=''):
  config = common.base()
  config.title = 'Statistical depth of text embeddings'
  config.steps, config.batch = 150, 8
  config.task = dict(name='stdlib_text', length=128, max_bytes=2_000_000)
  config.net = dict(embed=dict(name='tokens', vocab=256, length=128), head=dict(name='unembed'),
                    mixer=dict(name='attention', heads=4, causal=True), channel=dict(name='mlp', ratio=2.0, act='gelu'),
                    norm=dict(name='layer'), placement=dict(name='pre'), stack=dict(name='plain', scan=True), depth=2,
                    width=48)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=3e-3, schedule='cosine', warmup=20,
                         clip=1.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=64, batch=64, every=0)
  config.analysis = dict(split='test', examples=64, batch=64, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='tte_depth', embedding='latent', texts=600, splits=300, half=60,
                          packages=('email', 'tkinter'), draws=20, words=2000, dimensions=64, length=128,
                          site='final_norm')
  config.arms = dict(latent=dict(), trained=dict(procedure=dict(embedding='trained')))
  calibrated = lambda arm, metric, **more: dict(kind='band', arms=(arm,), metric=metric, band=(0.02, 0.09),
                                                better='higher', **more)
  powerful = lambda arm: dict(kind='superior', arms=(arm,), metric='separation', better='higher', tau=2.0, eps=0.301,
                              reason=DOUBLE, text=f'{arm}: the docstrings of email and tkinter differ at p < 0.01')
  config.claim = common.claim(
      id='tte-depth/1', component='representations/tte_depth',
      sentence='Among 300 random halves of one corpus of docstrings the rank-sum test of depths rejects 2 to 9 % at '
               'p < 0.05 if reference texts leave themselves out, and it tells email from tkinter at p < 0.01.',
      paper=dict(ref='Seegmiller & Preum 2023, arXiv:2310.15010', value=None, unit=None, direction='equal',
                 said='Depth finds a measurable shift between human and synthetic corpora for all of five augmentation '
                      'processes, on embeddings of pretrained encoders.', comparable=False),
      roles=dict(latent='ours', trained='ours'),
      metrics=dict(
          rejected=dict(long_name='true nulls rejected, reference texts left out of their depth', unit='1', worst=1.0),
          rejected_in_sample=dict(long_name='true nulls rejected, reference texts in their own depth', unit='1',
                                  worst=0.05),
          separation=dict(long_name='-log10 p of email against tkinter', unit='decades', worst=0.0)),
      assertions=dict(
          latent_null=calibrated('latent', 'rejected', text='latent semantic analysis: 2 to 9 % of true nulls'),
          trained_null=calibrated('trained', 'rejected', text='trained language model: 2 to 9 % of true nulls'),
          latent_power=powerful('latent'), trained_power=powerful('trained')),
      controls=dict(
          in_sample=calibrated('latent', 'rejected_in_sample', must='not hold',
                               text='texts that count in their own depth: 2 to 9 % of true nulls')),
      budget=dict(waived='the arms are two embeddings, one of counts and one trained; both are asked the same'),
      looks=(8, 16))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=4, batch=4, net=dict(depth=1, width=16), evaluation=dict(examples=8, batch=8),
                 analysis=dict(examples=8, batch=8),
                 procedure=dict(texts=40, splits=10, half=10, draws=2, words=200, dimensions=8),
                 claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, batch=256, net=dict(depth=6, width=384)))

"""The tour: a vision transformer on digits and a language model on Python text, seen from all five aspects.

    python -m experiments.run --config=configs/tour.py --workdir=runs/tour

Scales: claim (default; 5 minutes on two cores), smoke (seconds), full (an accelerator).
"""
from configs import common

VISION = dict(embed=dict(name='patches', size=2), head=dict(name='classify', pool='first'),
              mixer=dict(name='attention', heads=4, causal=False), channel=dict(name='mlp', ratio=4.0, act='gelu'),
              norm=dict(name='layer'), placement=dict(name='pre'), stack=dict(name='plain', scan=True),
              depth=6, width=48, dtype='float32')
LANGUAGE = dict(embed=dict(name='tokens', vocab=256, length=64), head=dict(name='unembed'),
                mixer=dict(name='attention', heads=4, causal=True))


def get_config(scale=''):
  config = common.base()
  config.title = 'The tour: what the layers of two small transformers do'
  config.steps, config.batch, config.seeds = 400, 32, 3
  config.task = dict(name='digits')
  config.net = VISION
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=1e-3, schedule='cosine',
                         warmup=30, clip=1.0, decay=0.05, objective=dict(name='cross_entropy', smoothing=0.0))
  stream = ('embed', 'resid_post.*')
  config.measures = dict(
      spectrum=dict(name='features/spectrum', sites=stream, pool='mean'),
      complexity=dict(name='features/complexity', sites=stream, pool='mean'),
      cka=dict(name='correlations/cka', sites=stream, pool='mean'),
      cca=dict(name='correlations/cca', sites=stream, pool='mean'),
      significance=dict(name='correlations/significance', sites=stream, pool='mean', draws=499),
      probe=dict(name='representations/probe', sites=stream, pool='mean'),
      collapse=dict(name='representations/collapse', sites=stream, pool='mean'),
      contribution=dict(name='depth/contribution'),
      skip=dict(name='depth/skip'),
      density=dict(name='locality/density'),
      attention_distance=dict(name='locality/attention_distance', grid=(4, 4), prefix=1))
  across = dict(name='correlations/cka', sites=('resid_post.*',))
  config.comparisons = dict(cka_of_seeds=dict(over='seed', measure=across),
                            cka_of_steps=dict(over='step', measure=across))
  tokens = dict(pool='tokens')
  config.arms = dict(
      vision=dict(),
      language=dict(
          task=dict(name='stdlib_text', length=64), net=LANGUAGE,
          measures=dict(spectrum=tokens, complexity=tokens, cka=tokens, cca=tokens, probe=tokens, collapse=tokens,
                        attention_distance=dict(grid=None, prefix=0)),
          batch=16, evaluation=dict(examples=128, batch=128), analysis=dict(examples=256, batch=64)))
  return common.scaled(
      config, scale,
      claim=dict(),
      smoke=dict(steps=20, seeds=2, batch=16, net=dict(depth=2, width=16),
                 evaluation=dict(examples=32, batch=32, every=10),
                 analysis=dict(examples=64, batch=32, when=(0.0, 1.0)), arms=dict(language=dict(
                     evaluation=dict(examples=32, batch=32), analysis=dict(examples=128, batch=32)))),
      full=dict(steps=20000, seeds=8, batch=512, net=dict(depth=12, width=256, dtype='bfloat16'),
                evaluation=dict(every=500), arms=dict(language=dict(
                    batch=256, evaluation=dict(examples=4096, batch=256), analysis=dict(examples=4096)))))

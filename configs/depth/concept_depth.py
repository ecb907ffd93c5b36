"""Concept depth: what a language model knows of its text is read the deeper, the more abstract it is.

    python -m experiments.claims run concept-depth

Scales: claim (default), smoke (seconds), full (a larger language model).
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Concept depth of a language model'
  config.steps, config.batch = 400, 8
  config.task = dict(name='stdlib_text', length=96, max_bytes=4_000_000)
  config.net = dict(embed=dict(name='tokens', vocab=256, length=96), head=dict(name='unembed'),
                    mixer=dict(name='attention', heads=4, causal=True), channel=dict(name='mlp', ratio=4.0, act='gelu'),
                    norm=dict(name='layer'), placement=dict(name='pre'), stack=dict(name='plain', scan=True), depth=6,
                    width=48)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=3e-3, schedule='cosine', warmup=20,
                         clip=1.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=128, batch=64, every=0)
  config.analysis = dict(split='test', examples=64, batch=64, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='concept_depth', snippets=1600, length=96, prefix=16, character='(',
                          sites=('resid_post.*',), strength=1.0)
  config.arms = dict(trained=dict(), untrained=dict(steps=0))
  layer = dict(eps=1 / 12, reason='half a layer of six')
  deeper = lambda arm, metric, **more: dict(kind='superior', arms=(arm,), metric=metric, better='higher', tau=0.0,
                                            **layer, **more)
  no_less = lambda metric, **more: dict(kind='noninferior', arms=('trained',), metric=metric, better='higher', **layer,
                                        **more)
  share = dict(unit='share of the layers', worst=0.0)
  config.claim = common.claim(
      id='concept-depth/1', component='depth/concept_depth',
      sentence='In a byte-level language model of six layers the depth behind which a concept is read no better does '
               'not fall from a character to the syntax to the order of lines, the order is read best in a deeper '
               'layer than the character, and sixteen random letters in front make none of them shallower.',
      paper=dict(ref='Jin et al. 2024, arXiv:2404.07066', value=None, unit=None, direction='higher', comparable=False,
                 said='Simple concepts are read in shallow layers and complex ones deeper, in Gemma, LLaMA and Qwen; '
                      'noise in front of a question makes them deeper.'),
      roles=dict(trained='ours', untrained='control'),
      metrics=dict(
          syntax_later=dict(long_name='converging depth of the syntax less that of the character', **share),
          order_later=dict(long_name='converging depth of the order less that of the syntax', **share),
          best_gap=dict(long_name='best layer of the order less that of the character', **share),
          character_shift=dict(long_name='converging depth with letters in front less without, character', **share),
          syntax_shift=dict(long_name='converging depth with letters in front less without, syntax', **share),
          order_shift=dict(long_name='converging depth with letters in front less without, order', **share),
          character_accuracy=dict(long_name='accuracy of the best layer, character', unit='1', worst=0.5),
          syntax_accuracy=dict(long_name='accuracy of the best layer, syntax', unit='1', worst=0.5),
          order_accuracy=dict(long_name='accuracy of the best layer, order', unit='1', worst=0.5),
          nll=dict(long_name='test loss', unit='nats', worst=5.545)),
      assertions=dict(
          syntax=no_less('syntax_later', text='the syntax converges no shallower than the character'),
          order=no_less('order_later', text='the order converges no shallower than the syntax'),
          best=deeper('trained', 'best_gap', text='the order is read best in a deeper layer than the character'),
          character_noise=no_less('character_shift', text='letters in front: the character is no shallower'),
          syntax_noise=no_less('syntax_shift', text='letters in front: the syntax is no shallower'),
          order_noise=no_less('order_shift', text='letters in front: the order is no shallower'),
          readable=dict(kind='superior', arms=('trained',), metric='order_accuracy', better='higher', tau=0.55,
                        eps=0.01, reason='a point of accuracy; the best of six layers at chance is 0.53',
                        text='the order is read better than by chance')),
      controls=dict(untrained=deeper('untrained', 'best_gap', must='not hold',
                                     text='in a network that was not trained no concept is deeper')),
      budget=dict(waived='one trained arm: concepts are read off the same networks'),
      sane=dict(arm='trained', metric='nll', band=(1.5, 2.8)), looks=(8, 16))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=4, batch=4, net=dict(depth=2, width=16), evaluation=dict(examples=8, batch=8),
                 analysis=dict(examples=8, batch=8), procedure=dict(snippets=40), claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, batch=256, net=dict(depth=12, width=768), procedure=dict(snippets=8000)))

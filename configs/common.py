"""What every config starts from: all fields of a study with their usual values. Values only."""
from ml_collections import ConfigDict


def base() -> ConfigDict:
  """A study with nothing chosen yet: set `task`, `net`, `learning` and `measures`."""
  return ConfigDict(dict(
      title='',
      seeds=3,                      # runs with seeds first_seed, first_seed + 1, ..., trained as one program
      first_seed=0,
      steps=1000,
      batch=64,
      task=dict(),
      net=dict(),
      learning=dict(),
      # The training curve: a pass over `examples` (0: all) of `split` every so many steps, and at the end; None: never.
      evaluation=dict(split='test', examples=512, batch=256, every=50),
      # The measures: the same examples at each of these shares of the training. `call` goes to the network.
      analysis=dict(split='test', examples=0, batch=128, when=(0.0, 0.1, 0.3, 1.0), call=dict()),
      measures=dict(),
      # Networks compared with one another: dict(over='seed' or 'step', measure=...), all pairs of their sites; steps
      # are those of `analysis.when`.
      comparisons=dict(),
      resplit=False,                # True: every seed draws its own split of the data (`task.split_seed`)
      arms=dict(),                  # named overrides of all of the above; none: one arm, `main`
      procedure=None, claim=None,   # a published claim: see `claim` below
      checkpoint=dict(every=200, keep=2),
      mesh=dict(devices=0, params='replicated'),    # 0 devices: all
  ))


def theory() -> ConfigDict:
  """A claim whose experiment needs no network, task or training: `procedure` has its settings."""
  return ConfigDict(dict(title='', procedure=dict(), arms=dict()))


def claim(**fields) -> ConfigDict:
  """The section `claim` of a system's config, with the fields that most claims leave as they are.

  Fields: id, component, sentence, paper (ref, said, value, unit, direction, comparable), roles, metrics, assertions,
  controls, budget, sane, looks, block, amends. `aspects.claims.spec` says what each may hold.
  """
  usual = dict(controls=dict(), sane=None, looks=(8, 16, 32), block=8, amends=None)
  return ConfigDict({**usual, **fields})


def scaled(config: ConfigDict, scale: str, **scales) -> ConfigDict:
  """`config` with the overrides of `scale`, one of the keywords; '' is the first."""
  names = list(scales)
  if scale not in ('', *names):
    raise ValueError(f'there is no scale {scale!r}; this config has {", ".join(names)}')
  config.update(scales[scale or names[0]])
  return config

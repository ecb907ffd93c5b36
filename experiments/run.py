"""Runs a config: `python -m experiments.run --config=configs/tour.py --workdir=runs/tour [--config.net.depth=8]`.

The scale follows a colon: `--config=configs/tour.py:smoke`. Start the same command again after any end: it goes on.
"""
import difflib
import logging
import re
import sys
import time

from absl import app
from absl import flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file('config', None, 'A config, with a scale behind a colon.', lock_config=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where results, report and checkpoints go.')
_DRY = flags.DEFINE_bool('dry', False, 'Check everything and say what would run.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}; fields are set by --config.FIELD=VALUE')
  for name in ('absl', 'jax'):                        # they report what is no concern of a run's reader
    logging.getLogger(name).setLevel(logging.WARNING)
  from aspects import mesh                            # after the flags: --help needs no jax
  mesh.join()
  from aspects import study as study_lib
  from aspects import train
  start = time.monotonic()
  try:
    study = study_lib.build(_CONFIG.value)
    print(study.describe(), file=sys.stderr)
    if _DRY.value:
      return
    study_lib.run(study, _WORKDIR.value)
  except (ValueError, train.Diverged) as error:
    sys.exit(f'error: {error}')
  except study_lib.Preempted as stopped:
    print(stopped, file=sys.stderr)
    raise
  if mesh.host()[0] == 0:
    print(f'done in {time.monotonic() - start:.0f} s; the report is {_WORKDIR.value}/report.html')


def parse(argv):
  """Flags, with one clear line for a field that does not exist."""
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    sys.exit(f'error: {explain(str(error), argv)}')


def explain(message: str, argv) -> str:
  """The message of a config override that failed, with the nearest field of the config it was meant for."""
  fields = [a.removeprefix('--config.').split('=')[0] for a in argv if a.startswith('--config.')]
  found = re.search(r"--config=(\S+)", ' '.join(argv))
  if not fields or not found:
    return message
  known = known_fields(found[1])
  for field in fields:
    if field not in known:
      close = difflib.get_close_matches(field, known, n=3)
      return f'--config.{field}: the config has no such field; nearest: {", ".join(close) or ", ".join(sorted(known))}'
  return message


def known_fields(file: str) -> set[str]:
  """All dotted fields of a config file with its scale."""
  import importlib.util
  path, _, scale = file.partition(':')
  spec = importlib.util.spec_from_file_location('config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  def walk(tree, prefix=''):
    for key, value in tree.items():
      yield prefix + key
      if hasattr(value, 'items'):
        yield from walk(value, f'{prefix}{key}.')
  return set(walk(module.get_config(*([scale] if scale else []))))


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=parse)

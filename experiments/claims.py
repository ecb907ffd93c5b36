"""Published claims: registered, run, judged, shown.

    python -m experiments.claims list                         every claim and its verdict
    python -m experiments.claims run lns --exec local:2       run one (or a family, or all) until it is decided
    python -m experiments.claims run lns --scale smoke        the same in seconds, recorded nowhere
    python -m experiments.claims run lns --dry                what would run: cells, cost, detectable effects
    python -m experiments.claims pilot lns --seeds 4          metrics on seeds from 1000 up, to choose margins by
    python -m experiments.claims status | show lns | judge | audit | gallery | noise | calibrate

The same command goes on after any end; a claim that is decided is not run again.
"""
import argparse
import json
import logging
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCALES = ('claim', 'smoke', 'full')
EVERY = 1.0                                          # seconds between two looks at the queue


def main(argv=None):
  arguments = parser().parse_args(argv)
  for name in ('absl', 'jax', 'jax._src.xla_bridge'):
    logging.getLogger(name).setLevel(logging.ERROR)
  try:
    return arguments.command(arguments)
  except ValueError as error:
    sys.exit(f'error: {error}')


def parser():
  out = argparse.ArgumentParser(prog='python -m experiments.claims', description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
  out.add_argument('--configs', type=pathlib.Path, default=ROOT / 'configs', help='folder of <family>/<system>.py')
  out.add_argument('--records', type=pathlib.Path, default=ROOT / 'claims', help='folder of records and ledger')
  commands = out.add_subparsers(required=True, metavar='COMMAND')
  def add(name, command, text, what=False):
    sub = commands.add_parser(name, help=text, description=text)
    sub.set_defaults(command=command)
    if what:
      sub.add_argument('what', nargs='?' if what == 'all' else None, default='all',
                       help='a system, a family, the path of a config, several by comma, or all')
      sub.add_argument('--scale', choices=SCALES, default='claim')
    return sub
  sub = add('run', run, 'run claims until they are decided', True)
  sub.add_argument('--exec', dest='executor', default='local:2', metavar='EXECUTOR:N[,OPTION=VALUE]',
                   help='local, slurm or kubernetes; N workers')
  sub.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/claims'), help='queue, logs, checkpoints')
  sub.add_argument('--dry', action='store_true', help='say what would run')
  sub.add_argument('--retry', action='store_true', help='run cells that failed once more')
  sub = add('pilot', pilot, 'runs arms here on tuning seeds, which no verdict ever uses', True)
  sub.add_argument('--seeds', type=int, default=4)
  sub.add_argument('--arms', default='', help='names, by comma; all by default')
  sub = add('status', status, 'what is recorded, stale or under way', 'all')
  sub.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/claims'))
  add('list', listing, 'every claim and its verdict', 'all')
  add('show', show, 'one claim: spec, verdict, gates', True)
  add('judge', judge, 'judge all records again from their rows and write ledger and q-values')
  add('audit', audit, 'check all records against their rows and specs')
  sub = add('gallery', gallery, 'the pages of all records')
  sub.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/gallery'))
  sub = add('noise', noise, 'the noise bank: how far paired baseline runs of a task differ', 'all')
  sub.add_argument('--seeds', type=int, default=24)
  sub = add('calibrate', calibrate, 'null audit and planted effects over the recorded claims')
  sub.add_argument('--draws', type=int, default=1000)
  sub.add_argument('--fresh', type=int, default=0, help='new seeds of every baseline to run in the place of ours')
  sub = add('work', work, 'a worker of a queue; executors start it')
  sub.add_argument('--queue', type=pathlib.Path, required=True)
  sub.add_argument('--idle', type=float, default=600.0, help='seconds without a cell after which it ends')
  return out


# --- run ------------------------------------------------------------------------------------------------------------

def run(arguments):
  from aspects.claims import cells
  from aspects.claims import record as record_lib
  from aspects.claims import running
  from experiments import launch
  start = time.monotonic()
  name, workers, options = launch.parse(arguments.executor)
  plans = load(arguments)
  if arguments.dry:
    for plan in plans.values():
      print(dry(plan, arguments))
    return 0
  folder = None if arguments.scale == 'smoke' else record_lib.Folder(arguments.records)
  queue = cells.Queue(arguments.workdir.resolve() / arguments.scale)
  queue.reopen()
  registered = {id: registration(plan, folder) for id, plan in plans.items()}
  campaign = running.Campaign(plans, queue, folder, registered, retry=arguments.retry)
  first = campaign.advance()
  report(first, None)
  if not campaign.finished:
    command = [sys.executable, '-m', 'experiments.claims', 'work', '--queue', str(queue.folder)]
    with launch.find(name)(queue.folder, workers=workers, command=command, **options) as crew:
      print(crew.describe(), file=sys.stderr)
      follow(campaign, crew)
      queue.close()
  for record in campaign.records.values():
    print(line(record))
  if not first.cells:
    print(f'nothing to do: {len(plans)} claims are decided and up to date ({time.monotonic() - start:.1f} s)')
  else:
    print(f'done in {time.monotonic() - start:.0f} s')
  return 0


def load(arguments):
  """The plans of the claims that were named, by id; all are checked before anything runs."""
  from aspects.claims import running
  from aspects.claims import spec as spec_lib
  chosen = spec_lib.choose(arguments.what, arguments.configs)
  plans = {}
  for path in chosen.values():
    if len(chosen) > 1 and not spec_lib.registers(path):
      continue
    claim = spec_lib.load(path, arguments.scale)
    plans[claim.id] = running.plan(claim)
  return plans


def recorded(arguments):
  """The records of the scale that is asked for, by id."""
  from aspects.claims import record as record_lib
  return record_lib.Folder(arguments.records).records('full' if arguments.scale == 'full' else 'claim')


def registration(plan, folder):
  """When the spec was registered: as its record says, or by the last commit of its config; smoke needs none."""
  from aspects.claims import record as record_lib
  if folder is None:
    return {'commit': 'unregistered', 'time': record_lib.now(), 'date': record_lib.now()[:10]}
  path = folder.record(plan.claim.id, plan.claim.scale)
  if path.exists():
    registered = json.loads(path.read_text())['registered']
    return {k: registered[k] for k in ('commit', 'time', 'date')}
  return record_lib.register(pathlib.Path(plan.claim.path))


def follow(campaign, crew):
  """Waits for cells, with a bar over them; ends when every claim has its verdict."""
  import tqdm
  with tqdm.tqdm(unit='cell', file=sys.stderr, dynamic_ncols=True,
                 mininterval=0.5 if sys.stderr.isatty() else 15) as bar:
    while not campaign.finished:
      progress = campaign.advance()
      report(progress, bar)
      if campaign.finished:
        break
      if not crew.watch():
        raise ValueError('all workers have ended and cells are left; their logs are in the folder of the queue. '
                         'The same command goes on')
      time.sleep(EVERY)


def report(progress, bar):
  for event in progress.events:
    (bar.write if bar is not None else print)(event, file=sys.stderr)
  if bar is not None:
    bar.total, bar.n = progress.cells, progress.done
    bar.set_postfix_str(f'{progress.running} running, {len(progress.records)} claims decided', refresh=False)
    bar.refresh() if sys.stderr.isatty() else bar.update(0)


def dry(plan, arguments):
  """What a claim would take: cells, seconds by its last record, and what its looks can see."""
  from aspects import inference
  from aspects.claims import judge as judge_lib
  claim = plan.claim
  record = recorded(arguments).get(claim.id)
  alpha, lines = judge_lib.LEVELS[len(claim.looks)], [f'{claim.id}: {claim.sentence}']
  known = {r['key'] for r in record['runs']} if record else set()
  each = [r['seconds'] for r in record['runs'] if 'seconds' in r] if record else []
  for look in claim.looks:
    cells = [plan.cell(arm, block) for block in plan.blocks(look) for arm in claim.arms]
    left = sum(not set(task['keys']) <= known for _, task in cells)
    cost = 'cost not known yet'
    if each:
      cost = f'about {sum(each) / len(each) * look * len(claim.arms):.0f} s of one worker'
    lines.append(f'  {look} seeds: {len(cells)} cells, {left} of them without rows; {cost}; '
                 f'detectable at 80 % power: {inference.detectable(look, alpha=alpha):.2f} sd of the paired difference')
  for name, a in claim.assertions.items():
    margin = ', '.join(f'{k} {a[k]}' for k in ('tau', 'eps', 'band', 'c') if k in a)
    was = next((x for x in record['assertions'] if x['name'] == name), None) if record else None
    seen = f'; sd was {was["sd"]:.3g}, detectable {was["mde80"]:.3g}' if was and was['sd'] else ''
    lines.append(f'  {name}: {a["kind"]} in {a["metric"]}, {margin}{seen}')
  return '\n'.join(lines)


def pilot(arguments):
  """Metrics of every arm and the differences of every assertion on seeds 1000, 1001, ...; recorded nowhere."""
  import tempfile
  import numpy as np
  from aspects.claims import judge as judge_lib
  from aspects.claims import running
  for plan in load(arguments).values():
    claim, seeds = plan.claim, range(running.TUNING, running.TUNING + arguments.seeds)
    arms = arguments.arms.split(',') if arguments.arms else list(claim.arms)
    rows = []
    for arm in arms:
      with tempfile.TemporaryDirectory() as folder:
        new = running.rows_of(claim, arm, seeds, pathlib.Path(folder), lambda: False, {s: '' for s in seeds})
      rows += new
      values = {n: np.array([r['metrics'][n] for r in new], float) for n in new[0]['metrics']}
      print(f'{arm}: ' + ', '.join(f'{n} {v.mean():.4g} (sd {v.std(ddof=1):.2g})' for n, v in values.items())
            + f'; {sum(r["status"] == "diverged" for r in new)} diverged, {new[0].get("params")} parameters, '
            f'{new[0].get("flops")} operations, {sum(r["seconds"] for r in new):.0f} s', flush=True)
    table = {(r['arm'], r['seed']): r for r in rows}
    for name, a in {**claim.assertions, **claim.controls}.items():
      if a['kind'] != 'identity' and set(a['arms']) <= set(arms):
        d = judge_lib.differences(claim, a, table, seeds)
        print(f'{name}: {a["kind"]}, difference {d.mean():.4g}, sd {d.std(ddof=1):.3g}, '
              f'from {d.min():.4g} to {d.max():.4g}')
  return 0


def work(arguments):
  """Runs cells of a queue until it is closed and done."""
  cache = arguments.queue.resolve() / 'programs'
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
  from aspects import mesh
  mesh.join()
  from aspects import checkpoint
  from aspects.claims import cells
  from aspects.claims import running
  from aspects.claims import team
  from aspects.claims import worker
  folder = arguments.queue / 'work'
  with checkpoint.Preemption() as preempted:
    ran = worker.work(cells.Queue(arguments.queue), lambda task, stop: running.run_cell(task, folder, stop),
                      idle=arguments.idle, preempted=preempted, team=team.here())
  print(f'{ran} cells')
  return 0


# --- looking --------------------------------------------------------------------------------------------------------

def line(record):
  verdict = record['verdict']
  q = '' if verdict['q'] is None else f', q {verdict["q"]:.2g}'
  seeds = 1 + max((r['seed'] for r in record['runs']), default=-1)
  small = ', negligible' if verdict['negligible'] else ''
  return f'{record["id"]:30s} {verdict["value"]:13s} {verdict["reason"]}{small}{q}, {seeds} seeds'


def listing(arguments):
  from aspects.claims import spec as spec_lib
  records = recorded(arguments)
  chosen = spec_lib.choose(arguments.what, arguments.configs)
  for system, path in chosen.items():
    mine = [r for r in records.values() if r['system'] == system]
    for record in mine:
      print(line(record))
    if not mine and spec_lib.registers(path):
      print(f'{system + "/-":30s} not run yet')
  return 0


def status(arguments):
  from aspects.claims import cells
  from aspects.claims import running
  plans = load(arguments)
  records = recorded(arguments)
  counts = {}
  for id, plan in plans.items():
    why = running.stale(plan, records[id]) if id in records else None
    state = 'not run yet' if id not in records else f'stale: {why}' if why else 'up to date'
    verdict = records[id]['verdict']['value'] if id in records else '-'
    counts[verdict] = counts.get(verdict, 0) + 1
    print(f'{id:30s} {verdict:13s} {state}')
  print(', '.join(f'{n} {verdict}' for verdict, n in sorted(counts.items())))
  folder = arguments.workdir / arguments.scale
  if folder.exists():
    queue = cells.Queue(folder)
    print(f'queue: {len(queue.finished())} cells done, {len(queue.running())} running, {len(queue.pending())} waiting')
  return 0


def show(arguments):
  from aspects.claims import spec as spec_lib
  for path in spec_lib.choose(arguments.what, arguments.configs).values():
    claim = spec_lib.load(path, arguments.scale)
    print(claim.text())
    records = recorded(arguments)
    record = records.get(claim.id)
    if not record:
      print('not run yet')
      continue
    for a in record['assertions']:
      value = '-' if a['estimate'] is None else f'{a["estimate"]:.4g}'
      bounds = f' [{a["ci"][0]:.4g}, {a["ci"][1]:.4g}]' if a['ci'] else ''
      detectable = f', detectable at 80 % power {a["mde80"]:.3g}' if a['mde80'] else ''
      print(f'{"control " if a["control"] else ""}{a["name"]}: {a["verdict"]}: {value}{bounds} {a["unit"]} '
            f'at {a["n"]} seeds{detectable}')
    for name, gate in record['gates'].items():
      print(f'gate {name}: {"passed" if gate["pass"] else "NOT PASSED"}: {gate["detail"]}')
    print(line(record))
  return 0


def judge(arguments):
  """New statistics and verdicts for the rows that are recorded; rows stay as they are."""
  from aspects.claims import judge as judge_lib
  from aspects.claims import record as record_lib
  from aspects.claims import spec as spec_lib
  folder, found = record_lib.Folder(arguments.records), spec_lib.find(arguments.configs)
  new = []
  for stage in ('claim', 'full'):
    for record in folder.records(stage).values():
      claim = spec_lib.load(found[record['system']], stage)
      if claim.hash != record['registered']['spec_hash']:
        raise ValueError(f'{record["id"]}: its rows belong to another spec')
      judged = judge_lib.judge(claim, record['runs'])
      verdict = {**judged.verdict, 'previous': record['verdict']['previous'], 'q': record['verdict']['q']}
      new.append({**record, 'claim': claim.sentence, 'title': claim.title, 'paper': dict(claim.paper),
                  'assertions': judged.assertions, 'gates': judged.gates, 'verdict': verdict})
  for record in record_lib.settle(folder, new):
    print(line(record))
  return 0


def audit(arguments):
  from aspects.claims import record as record_lib
  start = time.monotonic()
  folder = record_lib.Folder(arguments.records)
  problems = record_lib.audit(folder, arguments.configs)
  for problem in problems:
    print(problem)
  count = len(folder.records()) + len(folder.records('full'))
  print(f'{count} records judged again, {len(problems)} problems ({time.monotonic() - start:.1f} s)')
  return 1 if problems else 0


def gallery(arguments):
  from aspects.claims import gallery as gallery_lib
  from aspects.claims import record as record_lib
  from aspects.claims import running
  from aspects.claims import spec as spec_lib
  start = time.monotonic()
  folder, found = record_lib.Folder(arguments.records), spec_lib.find(arguments.configs)
  records, small = folder.records(), folder.records('full')
  specs, sources, stale = {}, {}, {}
  for id, record in records.items():
    claim = spec_lib.load(found[record['system']])
    specs[id] = claim.text()
    sources[id] = source(claim).read_text()
    # The data of the record stand for those of today: to hash data takes longer than to draw the pages.
    why = running.stale(running.Plan(claim, running.code(claim), record['provenance']['data']), record)
    stale |= {id: why} if why else {}
  calibration = folder.root / 'calibration.json'
  pages = gallery_lib.build(list(records.values()), arguments.out, history=record_lib.history(folder), specs=specs,
                            sources=sources, stale=stale, small=small,
                            calibration=json.loads(calibration.read_text()) if calibration.exists() else None)
  print(f'{len(pages)} pages in {time.monotonic() - start:.1f} s: {arguments.out}/index.html')
  return 0


def source(claim):
  """The file of a claim's component: experiments/<system>.py or aspects/<family>/<part>.py."""
  inside = claim.component if claim.component.startswith('experiments/') else f'aspects/{claim.component}'
  return ROOT / f'{inside}.py'


def noise(arguments):
  """Runs what the bank lacks of configs/noise.py, and prints all of it."""
  from aspects import plugin
  from aspects.claims import calibration
  from configs import noise as config
  plain = plugin.freeze(config.get_config(arguments.scale).to_dict())
  arms = plain.pop('arms')
  if arguments.what != 'all' and arguments.what not in arms:
    raise ValueError(f'the noise bank has no task {arguments.what!r}; {plugin.nearest(arguments.what, arms)}')
  chosen = arms if arguments.what == 'all' else {arguments.what: arms[arguments.what]}
  bank = calibration.noise_bank(arguments.records / 'noise.json', plain, chosen, arguments.seeds)
  for name in chosen:
    for metric, x in bank[name]['metrics'].items():
      print(f'{name:20s} {metric:16s} mean {x["mean"]:.4g}, sd {x["sd"]:.3g}, '
            f'of a paired difference {x["sd_paired"]:.3g}')
  return 0


def calibrate(arguments):
  """Writes calibration.json; status 1 if more nulls hold than chance allows."""
  from aspects.claims import calibration
  from aspects.claims import record as record_lib
  found = calibration.calibrate(record_lib.Folder(arguments.records), arguments.configs, arguments.draws,
                                arguments.fresh)
  for row in found['null_audit']:
    print(f'{row["claim"]:30s} {row["assertion"]:14s} {row["kind"]:12s} {row["rate"]:.3f} of nulls hold')
  for row in found['planted_effects']:
    print(f'{row["claim"]:30s} {row["assertion"]:14s} {row["effect_sd"]:g} sd planted: {row["holds"]:.3f} hold, '
          f'{row["holds_normal"]:.3f} in normal noise')
  passed = found['null_passes'] and ('replaced_passes' not in found or found['replaced_passes'])
  bound = 'within' if passed else 'OUTSIDE'
  print(f'mean rate of nulls that hold: {found["null_rate"]}; {bound} the binomial bound')
  return 0 if passed else 1


if __name__ == '__main__':
  sys.exit(main())

"""Files that are complete or not there."""
import contextlib
import os
import pathlib


@contextlib.contextmanager
def replacing(path: str | os.PathLike):
  """Gives a temporary path beside `path` that takes its place at the end; at any time the old or new file is whole."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    yield temporary
    _to_disk(temporary, os.O_RDWR)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  _to_disk(path.parent, os.O_RDONLY)              # the new name is durable once its folder is


def _to_disk(path, flags):
  handle = os.open(path, flags)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def write(path: str | os.PathLike, data: bytes) -> None:
  """Writes `data` to `path`, by `replacing`."""
  with replacing(path) as temporary:
    temporary.write_bytes(data)

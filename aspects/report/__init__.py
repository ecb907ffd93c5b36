"""A run's page: figures of its results and one self-contained HTML file."""


def render(tree, path):
  """Writes the page of `tree` to `path`: `page.render`, which is imported here as matplotlib takes its time."""
  from aspects.report import page
  page.render(tree, path)

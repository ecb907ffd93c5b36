"""What the layers of a network do, from five sides: features, correlations, representations, depth, locality.

In a notebook:

    from aspects import Net, Skip, Stream, forward, measure_network, tag

The plan of the house is `docs/architecture.md`.
"""
from aspects.data import ArraySource, Stream
from aspects.edits import Add, Noise, Project, Replace, Scale, Skip, site_gradients, skip_each, sweep
from aspects.measure import measure_arrays, measure_network
from aspects.net import Net
from aspects.plugin import build
from aspects.sites import forward, select, tag

__version__ = '0.1.0'
__all__ = ['Add', 'ArraySource', 'Net', 'Noise', 'Project', 'Replace', 'Scale', 'Skip', 'Stream', 'build', 'forward',
           'measure_arrays', 'measure_network', 'select', 'site_gradients', 'skip_each', 'sweep', 'tag']

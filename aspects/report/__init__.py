"""A run's page: figures of its results and one self-contained HTML file."""
from aspects.report.page import render

__all__ = ['render']

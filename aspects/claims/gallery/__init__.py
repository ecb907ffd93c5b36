"""The gallery: every claim as a page, all of them on one, drawn from committed records; no library and no network."""
from aspects.claims.gallery.site import build

__all__ = ['build']

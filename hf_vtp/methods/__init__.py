"""Methods: the parts they are made of, and the table of those with a name."""

from .listing import list_methods

__all__ = ["list_methods"]

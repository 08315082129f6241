"""Pictures of what pruning keeps: of one forward, and of several methods beside each other."""

from .contact import contact_sheet
from .kept import draw_kept
from .preview import preview

__all__ = ["contact_sheet", "draw_kept", "preview"]

"""Pictures of what pruning keeps: of one forward, and of several methods beside each other."""

from .contact import contact_sheet
from .kept import draw_kept
from .preview import Eyes, load_eyes, see

__all__ = ["Eyes", "contact_sheet", "draw_kept", "load_eyes", "see"]

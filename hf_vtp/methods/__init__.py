"""Methods, one a page: NAME.py says what it does and where from, and holds the parts that only it uses.

`scorers`, `selectors` and `mergers` hold the parts that no single method owns; `table` the row of each
method, `layers` where they act by default, `listing` what is said of them. docs/add-a-method.md adds one.
"""

from importlib import import_module
from pkgutil import iter_modules

from .listing import list_methods
from .table import register_method

__all__ = ["list_methods", "register_method"]

# every module beside this one, so that a page is a method's only file: the default first, then by name
_pages = {module.name for module in iter_modules(__path__)}
for _page in sorted(_pages, key=lambda name: (name != "vtp", name)):
    import_module(f".{_page}", __name__)

"""What every method is to compute, as plain loops in float64 over one image; shares no code with hf_vtp.

A page hf_vtp/methods/NAME.py has its loops in NAME.py here, under the names of its parts; `OPTIONS` there
are those to try beside the defaults, by part. Parts of several methods, and older ones, have their loops in
scorers.py, selectors.py, greedy.py and mergers.py.
"""

from importlib import import_module
from importlib.util import find_spec


def own_file(function):
    """The file of loops that belongs to the page of a part's function, None if it has none."""
    name = f"{__name__}.{function.__module__.rpartition('.')[2]}"
    return import_module(name) if find_spec(name) else None


def references(table, *shared):
    """The loop of each part in a table by name, None where there is none."""
    files = {name: [own_file(row.function), *shared] for name, row in table.items()}
    return {
        name: next((getattr(file, name) for file in places if hasattr(file, name)), None)
        for name, places in files.items()
    }


def more_options(table):
    """Options beside the defaults, by part, that files of single pages give."""
    files = [own_file(row.function) for row in table.values()]
    return {name: given for file in files for name, given in getattr(file, "OPTIONS", {}).items()}

"""The sections of the page: one file for each, from a diagnostic's result to its title, numbers, figures and captions.

In: every file ``*_section.py`` makes its :class:`~probvae.report.sections.base.Section`. A new file is a new section:
nothing has to be registered. Out: how a figure is drawn (``figures/``), how a page is written (``page.py``), and what a
diagnostic computes (``probvae.diagnostics``). The order of the page is that of
:func:`~probvae.diagnostics.diagnose.diagnose`.

The door is :func:`all_sections`.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from probvae.report.sections.base import Section

_SUFFIX = "_section"


@cache
def all_sections() -> dict[str, Section]:
    """The sections of all files in this folder, by name.

    >>> sorted(all_sections())[:2]
    ['calibration', 'calibration_on_data']
    """
    names = [module.name for module in iter_modules(__path__) if module.name.endswith(_SUFFIX)]
    modules = [import_module(f"{__name__}.{name}") for name in names]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Section)]
    return {section.name: section for section in found}

"""`import torchvision` beside a torch that its compiled operators were not built for.

The wheel of torchvision on PyPI is built against CUDA. Beside a CPU-only torch its library of operators cannot be
loaded, and the import fails where Python code refers to one of them, although reading data sets needs none.
Declaring the operators' schemas, without an implementation, lets the import go through.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# the declarations last as long as this object
_declarations: list[Any] = []


def import_torchvision() -> ModuleType:
    """The module torchvision, whose data sets work even where its operators do not."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _forget_half_imported()
    _declare_missing_operators()
    return importlib.import_module("torchvision")


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_missing_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _declarations.append(library)

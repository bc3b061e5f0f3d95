"""From tensors to what figures take."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def as_double(values: Tensor) -> NDArray[np.float64]:
    """The numbers in float64, wherever the tensor was."""
    return values.detach().double().cpu().numpy()

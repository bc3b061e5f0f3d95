"""Adam, for every path that a training step can take: torch's kernel, and the same formula in operators."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probvae.foundation.torch_internals import add_to_all, fused_adam, has_fused_adam


class Adam:
    r"""Adam on the tensors ``parameters``, each of any shape; its moments have the same shapes.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
              \theta \leftarrow \theta - \eta\, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    ``learning_rate`` may be set anew before every step. :meth:`state_dict` is a flat dictionary of tensors, which a
    checkpoint can hold; after :meth:`load_state_dict` the next step is the one that would have come.
    Source: Kingma and Ba (2015), arXiv:1412.6980, algorithm 1.

    >>> parameter = torch.zeros(2)
    >>> Adam([parameter], learning_rate=0.1).step([torch.ones(2)])
    >>> parameter
    tensor([-0.1000, -0.1000])
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = [parameter.detach() for parameter in parameters]
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    def add(self, parameter: Tensor) -> None:
        """Take up another ``parameter``, of any shape, with moments of zero."""
        self.parameters.append(parameter.detach())
        self.first.append(torch.zeros_like(self.parameters[-1]))
        self.second.append(torch.zeros_like(self.parameters[-1]))
        self.steps.append(torch.zeros((), device=parameter.device))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step down the ``gradients``, one of each parameter's shape; where it is None the parameter stays."""
        found = [(index, gradient) for index, gradient in enumerate(gradients) if gradient is not None]
        if len(found) == len(self.parameters):
            self._update(self.parameters, [g for _, g in found], self.first, self.second, self.steps)
        elif found:
            parts = (self.parameters, self.first, self.second, self.steps)
            parameters, first, second, steps = ([part[index] for index, _ in found] for part in parts)
            self._update(parameters, [g for _, g in found], first, second, steps)

    def _update(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
        steps: list[Tensor],
    ) -> None:
        add_to_all(steps, 1)
        if has_fused_adam():
            fused_adam(parameters, gradients, (first, second), steps, self.learning_rate, self.betas, self.eps)
            return
        for index, step in enumerate(steps):
            scalars = step.new_tensor(self.scalars(int(step)))
            moments = first[index], second[index]
            self.step_as_operators(parameters[index], gradients[index], moments, scalars.to(first[index].dtype))

    def scalars(self, number: int) -> tuple[float, float]:
        r"""The parts of the formula that change from step to step, at step ``number`` = t, counted from one.

        They are :math:`\eta / (1 - \beta_1^t)` and :math:`\sqrt{1 - \beta_2^t}`.
        """
        return self.learning_rate / (1 - self.betas[0] ** number), math.sqrt(1 - self.betas[1] ** number)

    def step_as_operators(
        self,
        parameter: Tensor,
        gradient: Tensor,
        moments: tuple[Tensor, Tensor],
        scalars: Tensor,
        finite: Tensor | None = None,
    ) -> None:
        """The same step of one ``parameter`` in torch's operators, which can be traced: in place.

        ``gradient`` and the two ``moments`` have the parameter's shape; ``scalars`` (2,) holds :meth:`scalars`. Where
        the scalar ``finite`` is false, nothing moves.
        """
        (first, second), (size, correction) = moments, scalars.unbind()
        mean = first.lerp(gradient, 1 - self.betas[0])
        square = second * self.betas[1] + gradient * gradient * (1 - self.betas[1])
        moved = parameter - size * mean / (square.sqrt() / correction + self.eps)
        for old, new in ((first, mean), (second, square), (parameter, moved)):
            old.copy_(new if finite is None else torch.where(finite, new, old))

    def state_dict(self) -> dict[str, Tensor]:
        """The moments (of the parameter's shape) and the number of steps (a scalar) of each parameter, by name."""
        return {f"{kind}.{index}": tensor for kind, part in self._parts() for index, tensor in enumerate(part)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Copy the tensors of a :meth:`state_dict` into this optimiser's own, in place."""
        for kind, part in self._parts():
            for index, tensor in enumerate(part):
                tensor.copy_(state_dict[f"{kind}.{index}"])

    def _parts(self) -> list[tuple[str, list[Tensor]]]:
        return [("first_moment", self.first), ("second_moment", self.second), ("step", self.steps)]

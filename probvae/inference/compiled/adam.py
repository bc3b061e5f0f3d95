"""Adam, with torch's arithmetic."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Adam:
    r"""Adam on given tensors: torch's own kernel, without the class that imports torch's compiler.

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

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step down; a parameter whose gradient is None stays where it is."""
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
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            parameters,
            gradients,
            first,
            second,
            [],
            steps,
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The moments and the number of steps of each parameter, by name."""
        return {f"{kind}.{index}": tensor for kind, part in self._parts() for index, tensor in enumerate(part)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Take up what :meth:`state_dict` gave, in place."""
        for kind, part in self._parts():
            for index, tensor in enumerate(part):
                tensor.copy_(state_dict[f"{kind}.{index}"])

    def _parts(self) -> list[tuple[str, list[Tensor]]]:
        return [("first_moment", self.first), ("second_moment", self.second), ("step", self.steps)]

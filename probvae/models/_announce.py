"""Tell Pyro's handlers which parameters a module has, without the global parameter store."""

from pyro.poutine.runtime import am_i_wrapped, effectful
from torch import Tensor, nn


def announce_parameters(module: nn.Module, prefix: str) -> None:
    """Send one message of type ``param`` for each trainable parameter of ``module``.

    `pyro.infer.SVI` and the loss classes learn from such messages what to train. A ``pyro.param`` statement
    would send them too, but it keeps the values in one store for the whole process, where two models of the
    same shape overwrite each other. Outside a handler this does nothing.
    """
    if not am_i_wrapped():
        return
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            _announce(parameter, name=f"{prefix}.{name}")


@effectful(type="param")
def _announce(parameter: nn.Parameter) -> Tensor:
    # An alias carries the attribute that SVI asks for; on the parameter itself it would break pickling.
    alias = parameter.detach()
    alias.unconstrained = lambda: parameter  # type: ignore[attr-defined]  # Pyro's own, which no tensor has
    return alias

"""Every option of a fit is written once: signature, docstring, recipe keys, flags and checkpoints read FitOptions."""

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

import pytest
import torch

import probvae
from probvae.cli.fit_command import command
from probvae.errors import ArgumentError, ConfigError, UnknownOptionError
from probvae.experiments.recipe import DEFAULT, KEYS, TRAINING
from probvae.foundation.fit_options import OPTIONS, described, option, options_of
from probvae.inference import FitOptions, fit

FLAGS = {parameter.name: parameter for parameter in command.params}
# A value of each option that its check refuses
BAD: dict[str, Any] = {
    "epochs": 0,
    "batch_size": -3,
    "learning_rate": 0.0,
    "schedule": "cosin",
    "gradient_clip": -1.0,
    "validation": 1.5,
    "patience": 0,
    "kl_warmup": -1,
    "max_skipped_steps": -1,
    "binarization": "once",
    "seed": -1,
    "compile": "yes",
    "device": "warp",
    "checkpoint_seconds": 0.0,
}


@pytest.mark.parametrize("name", [each.name for each in fields(FitOptions)])
def test_an_option_is_the_same_everywhere(name: str) -> None:
    (field,) = (each for each in fields(FitOptions) if each.name == name)
    parameter = inspect.signature(fit).parameters[name]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert (parameter.default, parameter.annotation) == (field.default, field.type)
    assert f"\n{name}\n    {field.metadata['help']} Default: {field.default!r}.\n" in fit.__doc__
    assert len(field.metadata["help"]) < 100
    assert OPTIONS[name].help == field.metadata["help"]
    table = "data" if name == "binarization" else "training"  # it says what the data are too
    assert OPTIONS[name].key == f"{table}.{name}"
    assert KEYS[table][name] == OPTIONS[name].types
    assert DEFAULT[table].get(name) == OPTIONS[name].recipe_default
    assert FLAGS[name].opts == [f"--{name.replace('_', '-')}"]
    assert FLAGS[name].help.startswith(field.metadata["help"])
    # a recipe's own value stands where the flag is not there
    assert command.make_context("fit", []).params[name] is None


def test_nothing_but_options_is_a_training_key() -> None:
    assert KEYS["training"].keys() == TRAINING.keys() == OPTIONS.keys() - {"binarization"}


def test_python_and_the_command_line_have_the_same_defaults() -> None:
    """But the share to set aside: a caller's rows are held out only where the caller says so."""
    differing = {name for name, each in OPTIONS.items() if each.default != each.recipe_default}
    assert differing == {"validation"}
    assert all(each.default is not MISSING for each in fields(FitOptions))


def test_bad_values_are_known_for_every_option() -> None:
    assert BAD.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_by_its_name(name: str) -> None:
    for call in (lambda: FitOptions(**{name: BAD[name]}), lambda: fit(None, None, **{name: BAD[name]})):
        with pytest.raises(ArgumentError, match=rf"^({name}: |unknown {name} )"):
            call()


def test_options_may_come_as_one_object_with_keywords_on_top() -> None:
    def fitted(**given: Any) -> torch.Tensor:
        torch.manual_seed(0)
        vae = probvae.VAE.example()
        fit(vae, torch.randn(40, 3), progress=False, **given)
        return torch.nn.utils.parameters_to_vector(vae.parameters()).detach()

    options = FitOptions(epochs=2, batch_size=20, seed=4)
    assert torch.equal(fitted(options=options), fitted(epochs=2, batch_size=20, seed=4))
    assert torch.equal(fitted(options=options, epochs=1), fitted(epochs=1, batch_size=20, seed=4))


def test_an_unknown_keyword_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UnknownOptionError, match=r"^unknown option of fit 'epoch'. Did you mean 'epochs'\?") as raised:
        fit(None, None, epoch=3)
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, ConfigError)


def test_a_new_option_is_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signature, docstring, recipe key and flag of an option that is made here come from its field."""
    from probvae.cli import fit_command

    def positive(value: Any, name: str) -> None:
        if value <= 0:
            raise ArgumentError(f"{name}: expected a number > 0, got {value}.")

    @dataclass(frozen=True)
    class MoreOptions(FitOptions):
        weight_decay: float = option(0.5, positive, "How fast weights shrink.")

    more = options_of(MoreOptions)
    monkeypatch.setattr("probvae.foundation.fit_options.OPTIONS", more)
    monkeypatch.setattr("probvae.foundation.fit_options.FitOptions", MoreOptions)

    @described
    def train(x: object, **training: Any) -> None:
        """Train.

        Parameters
        ----------
        {options}
        """

    assert inspect.signature(train).parameters["weight_decay"].default == 0.5
    assert "weight_decay\n    How fast weights shrink. Default: 0.5." in train.__doc__
    with pytest.raises(ArgumentError, match="weight_decay: expected a number > 0, got -1"):
        MoreOptions(weight_decay=-1)
    assert MoreOptions().fixed()["weight_decay"] == 0.5
    assert more["weight_decay"].types == (int, float)
    monkeypatch.setattr(fit_command, "OPTIONS", more)

    @fit_command.training_flags
    def run() -> None: ...

    assert "--weight-decay" in re.findall(r"--[\w-]+", str([each.opts for each in run.__click_params__]))


def test_help_shows_every_option(probvae_help: Callable[[], str]) -> None:
    shown = " ".join(probvae_help().split())
    for each in OPTIONS.values():
        assert each.flag in shown
        assert each.help in shown


@pytest.fixture
def probvae_help() -> Callable[[], str]:
    from click.testing import CliRunner

    return lambda: CliRunner().invoke(command, ["--help"], prog_name="probvae fit").output

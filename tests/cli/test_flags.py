"""Messages on the command line speak of flags; those of the library speak of arguments."""

import ast
import re
from importlib import import_module
from pathlib import Path

import click
import pytest

import probvae
from probvae.cli.fit_command import KEYS
from probvae.cli.fit_command import command as fit
from probvae.cli.flags import in_flags, option_text
from probvae.cli.main import COMMANDS
from probvae.data import BINARIZATIONS, DATASETS, SCALINGS
from probvae.errors import _MEANINGS, nearest_name
from probvae.experiments import recipe
from probvae.inference import Encoder, Guide, Objective
from probvae.models import Decoder, Likelihood, Prior

PACKAGE = Path(probvae.__file__).parent
PARAMETERS = [
    (name, parameter)
    for name in COMMANDS
    for parameter in import_module(f"probvae.cli.{name.replace('-', '_')}_command").command.params
]
# An option of `probvae fit`, a wrong value for it, and what is said
MISTAKES = {
    "--data": ("digit", "unknown data set 'digit'. Did you mean 'digits'?"),
    "--data-dir": ("nowhere", "--data-dir: 'digits' does not take it"),
    "--labels": ("label", "--labels: 'digits' does not take it"),
    "--num-data": ("0", "--num-data: expected 1 to 1797"),
    "--scaling": ("zscore", "unknown scaling 'zscore'. Did you mean 'standardize'?"),
    "--binarization": ("dynamic", "unknown binarization 'dynamic'. Did you mean 'fresh'?"),
    "--exposure": ("column", "--exposure: digits has no named columns"),
    "--condition": ("column", "--condition: digits has no named columns"),
    "--missing": ("masked", "unknown missing 'masked'. Did you mean 'mask'?"),
    "--prior": ("gmm", "unknown prior 'gmm'. Did you mean 'mixture'?"),
    "--likelihood": ("mse", "unknown likelihood 'mse'. Did you mean 'gaussian'?"),
    "--variance": ("-1", "--variance: expected a finite number > 0, got -1"),
    "--decoder": ("cnn", "unknown decoder 'cnn'. Did you mean 'conv'?"),
    "--encoder": ("MLPEncoder", "unknown encoder 'MLPEncoder'. Did you mean 'mlp'?"),
    "--guide": ("mean-field", "unknown guide 'mean-field'. Did you mean 'diagonal'?"),
    "--objective": ("importance-weighted", "unknown objective 'importance-weighted'. Did you mean 'iwae'?"),
    "--num-particles": ("0", "--num-particles: expected an integer >= 1, got 0"),
    "--beta": ("-1", "--beta: expected a finite number > 0, got -1"),
    "--free-bits": ("-1", "--free-bits: expected nats >= 0, got -1"),
    "--latent-dim": ("0", "--latent-dim: expected an integer >= 1, got 0"),
    "--hidden": ("0", "--hidden: expected an integer >= 1, got 0"),
    "--epochs": ("0", "--epochs: expected an integer >= 1, got 0"),
    "--batch-size": ("0", "--batch-size: expected an integer >= 1, got 0"),
    "--learning-rate": ("nan", "--learning-rate: expected a finite number > 0, got nan"),
    "--schedule": ("cosin", "unknown schedule 'cosin'. Did you mean 'cosine'?"),
    "--gradient-clip": ("-1", "--gradient-clip: expected a finite number > 0, got -1"),
    "--validation": ("1.5", "--validation: expected a share between 0 and 1, or data (M, D), got 1.5"),
    "--max-skipped-steps": ("-1", "--max-skipped-steps: expected an integer >= 0, got -1"),
    "--patience": ("0", "--patience: expected an integer >= 1, got 0"),
    "--kl-warmup": ("-1", "--kl-warmup: expected an integer >= 0, got -1"),
    "--seed": ("-1", "--seed: expected an integer >= 0, got -1"),
    "--compile": ("maybe", "'--compile': 'maybe' is not one of"),
    "--checkpoint-seconds": ("0", "--checkpoint-seconds: expected a finite number > 0, got 0"),
    "--device": ("warp", "--device: 'warp' is not available here. Use --device cpu"),
    "--set": ("epochs=3", "--set 'epochs=3': expected table.key=value"),
    "--resume": ("nothing", "there is no config.toml in it"),
    "--memory-limit": ("1MB", "'--memory-limit': expected at least 64MB"),
    "--out": ("/", "--out: / exists. Choose another folder"),
}
# The same for the commands that read a run
OF_A_RUN = {
    ("sample", "-n", "0"): "--num-samples: expected an integer >= 1, got 0",
    ("sample", "--given", "a"): "--given: this model is not conditional. Leave it out, or build it with --condition",
    ("impute", "--interval", "2"): "--interval: ",
    ("impute",): "Build and fit it with --missing mask",
    ("report", "--num-data", "99999"): "--num-data: expected at most",
    ("report", "--draws", "1"): "'--draws': 1 is not in the range",
    ("gap", "--truth", "quadratur"): "'--truth': 'quadratur' is not one of",
    ("encode", "iris"): "DATA: iris has 4 columns",
    ("reconstruct", "--data", "iris"): "--data: iris has 4 columns",
    ("reconstruct", "--data", "irish"): "Did you mean 'iris'?",
}


def arguments_in(message: str) -> list[str]:
    """What can only be Python's: ``name=value`` that is no setting, and names with an underscore outside quotes."""
    message = re.sub(r"--set \S+|'[^']*'|\S*/\S*", "", message)
    return re.findall(r"(?<![\w.-])[a-z_]+=\S+|(?<![\w.-])[a-z]+(?:_[a-z]+)+(?!\w)", message)


@pytest.mark.parametrize("option", MISTAKES)
def test_every_wrong_option_of_fit_is_called_by_its_flag(probvae, tmp_path: Path, option: str) -> None:
    value, message = MISTAKES[option]
    done = probvae("fit", option, value, "--no-gap", "--no-figures", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert arguments_in(done.stderr) == []


def test_all_options_of_fit_that_take_a_value_are_tried() -> None:
    options = {option_text(option) for option in fit.params if isinstance(option, click.Option) and not option.is_flag}
    assert options == set(MISTAKES)


@pytest.mark.parametrize("case", OF_A_RUN, ids=" ".join)
def test_commands_on_a_run_speak_of_flags(probvae, small_run: Path, tmp_path: Path, case: tuple[str, ...]) -> None:
    command, *options = case
    done = probvae(command, small_run, *options, "--out", tmp_path)
    assert done.returncode == 2, done.stderr
    assert OF_A_RUN[case] in done.stderr
    assert arguments_in(done.stderr) == []


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS, ids=lambda value: getattr(value, "name", value))
def test_every_option_is_known_by_the_name_of_its_argument(name: str, parameter: click.Parameter) -> None:
    command = import_module(f"probvae.cli.{name.replace('-', '_')}_command").command
    if parameter.name != "run":  # which may be the path of a folder
        assert in_flags(f"{parameter.name}: expected 1.", command) == f"{option_text(parameter)}: expected 1."
    if isinstance(parameter, click.Option) and not parameter.is_flag:
        flag = option_text(parameter)
        assert (
            in_flags(f"Use {parameter.name}='a', or {parameter.name}=0.5.", command) == f"Use {flag} a, or {flag} 0.5."
        )


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if not key.endswith(".name")])
def test_keys_of_a_recipe_are_called_by_their_flags(name: str) -> None:
    assert in_flags(f"{KEYS[name]}: expected int.", fit) == f"--{name.replace('_', '-')}: expected int."
    assert in_flags(f"recipe a.toml: {KEYS[name]}: expected int.", fit) == f"recipe a.toml: {KEYS[name]}: expected int."


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Use compile=False, progress=False or allow_grey=True.", "Use --compile no, --no-progress or --allow-grey."),
        ("Use hidden=(64, 32).", "Use --hidden 64,32."),
        ("Use labels='a column'.", "Use --labels 'a column'."),
        ("Use num_levels=17.", "Use --set model.likelihood.num_levels=17."),
        ("the floor minimum_variance=1e-06.", "the floor model.likelihood.minimum_variance=1e-06."),
        ("a smaller learning_rate, or gradient_clip.", "a smaller --learning-rate, or --gradient-clip."),
        ("Raise in_memory_limit.", "Raise data.in_memory_limit."),
    ],
)
def test_arguments_become_flags(message: str, expected: str) -> None:
    assert in_flags(message, fit) == expected


@pytest.mark.parametrize(
    "message",
    [
        "batch_size.csv: no column 'num_data' in a/num_data/b.",
        "the guide of this prior, at the variance of the data: a seed",
        "unknown option of prior 'normal' 'num_components'. Choose one of: covariance.",
    ],
)
def test_words_and_names_of_the_user_stay(message: str) -> None:
    assert in_flags(message, fit) == message


def test_the_library_names_no_flag() -> None:
    """Whole commands (`probvae fit --resume RUN`) apart, which are a way out in any case."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        if file.is_relative_to(PACKAGE / "cli"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.Raise) else ""
            found += [f"{file}: {text}"] if re.search(r"(?<!\w)--[a-z]", re.sub(r"probvae [a-z]+.*", "", text)) else []
    assert found == []


def test_meanings_lead_to_names_that_there_are() -> None:
    families = (Prior, Likelihood, Decoder, Encoder, Guide, Objective)
    known = {name for family in families for name in family.registry} | {
        *SCALINGS,
        *BINARIZATIONS,
        *DATASETS,
        *COMMANDS,
    }
    known |= {key for keys in recipe.KEYS.values() for key in keys} | {parameter.name for _, parameter in PARAMETERS}
    known |= {"diagonal", "full", "cuda"}
    assert {name for names in _MEANINGS.values() for name in names} <= known


@pytest.mark.parametrize("family", [Prior, Likelihood, Decoder, Encoder, Guide, Objective], ids=lambda f: f.family)
def test_a_class_is_found_by_its_own_name(family: type) -> None:
    for name, component in family.registry.items():
        assert nearest_name(component.__name__, family.registry) == name


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train",), "Did you mean 'fit'"),
        (("generate", "run"), "Did you mean 'sample'"),
        (("fit", "--lr", "3"), "Did you mean '--learning-rate'"),
        (("fit", "--steps", "3"), "Did you mean '--epochs'"),
        (("fit", "--set", "training.lr=3"), "Did you mean 'training.learning_rate'"),
    ],
)
def test_unknown_words_lead_to_what_they_mean(probvae, words: tuple[str, ...], told: str) -> None:
    done = probvae(*words)
    assert done.returncode == 2
    assert told in done.stderr

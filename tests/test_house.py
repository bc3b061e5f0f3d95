"""The rules of the house, measured by the functions that benchmarks/house.py prints with.

Imports go one way; a name, an option and a file name exist once; files, functions and folders keep their size; nothing
heavy is imported early; there is no parameter store and no pickle.
"""

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import probvae
from probvae import models
from probvae.foundation.fit_options import FitOptions
from probvae.inference import Encoder, Guide, Objective

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import draw_architecture
import house
import house_code
import house_rooms
import house_walk

PACKAGE = Path(probvae.__file__).parent
FILES = [file for file in house_code.files(PACKAGE) if file != PACKAGE / "__init__.py"]
LIMITS = {
    "rooms at the top": 15,
    "rooms in inference": 13,
    "circles of files": 0,
    "upward imports": 0,
    "files over 350 lines": 0,
    "functions over 60 code lines": 0,
    "functions with more than 10 parameters": 2,
    "file names that occur twice": 0,
    "underscore modules outside a family": 0,
    "folders with fewer than 3 or more than 15 files": 0,
    "folders without a page": 0,
    "public tensor functions without a shape": 0,
    "comments and docstrings that begin as riddles": 0,
    "private names in more than one file": 0,
}
FAMILIES = {
    "prior": models.Prior,
    "likelihood": models.Likelihood,
    "decoder": models.Decoder,
    "guide": Guide,
    "encoder": Encoder,
    "objective": Objective,
}


@pytest.fixture(scope="module")
def measured() -> dict[str, house.Measure]:
    return {measure.name: measure for measure in house.measures(PACKAGE)}


@pytest.mark.parametrize("name", LIMITS)
def test_the_house_keeps_its_limits(measured: dict[str, house.Measure], name: str) -> None:
    measure = measured[name]
    assert measure.value <= LIMITS[name], measure.places


def test_the_measures_see_what_they_are_for(tmp_path: Path) -> None:
    """A small house with every fault."""
    package = tmp_path / "small"
    texts = {
        "__init__.py": "",
        "foundation/__init__.py": '"""TODO room page."""\n',
        "foundation/_hidden.py": "import torch._dynamo\nfrom torch.nn import Module\nModule()._version\n",
        "models/__init__.py": '"""One.\n\nTwo.\n\nThree.\nFour.\nFive.\nThe door is a."""\n',
        "models/latent.py": (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from small.inference.text import f\n"
            'def g(x: Tensor) -> Tensor:\n    """x as it is."""\n    # Whether this is code\n\n    return x\n'
        ),
        "models/text.py": 'def f(x: Tensor, y: Tensor) -> None:\n    """Take x (N, D)."""\n',
        "inference/__init__.py": "",
        "inference/text.py": "def f():\n    from ..models import latent\n    return latent\n",
    }
    for name, text in texts.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert house_rooms.circles(package) == [["inference/text.py", "models/latent.py"]]
    assert house_rooms.imports(package)["inference/text.py"] == {"models/latent.py"}
    assert house_rooms.rooms(package) == ["foundation", "inference", "models"]
    assert house_rooms.repeated_names(package) == {"text.py": 2}
    assert house_rooms.loose_underscores(package) == ["foundation/_hidden.py"]
    assert house_rooms.badly_filled_folders(package) == {".": 1, "foundation": 2, "inference": 2}
    assert house_rooms.folders_without_page(package) == [".", "foundation", "inference"]
    assert house_code.private_places(package) == {"foundation/_hidden.py": ["1 torch._dynamo", "3 Module()._version"]}
    assert not house_code.scattered_names(package)
    assert house_code.riddles(package) == ["models/latent.py:6 Whether this is code"]
    assert house_code.tensor_functions(package) == {"models/latent.py:4 g": False, "models/text.py:1 f": True}
    assert {f.place: f.code_lines for f in house_code.functions(package)} == {
        "inference/text.py:1 f": 3,
        "models/latent.py:4 g": 2,
        "models/text.py:1 f": 1,
    }
    assert house_code.wide_functions(package, most=1) == {"models/text.py:1 f": 2}
    assert house_code.long_files(package, most=7) == {"models/__init__.py": 8, "models/latent.py": 8}


def test_an_import_that_goes_up_is_seen() -> None:
    assert house_rooms.level("models/latent.py") < house_rooms.level("inference/encoders.py")
    assert house_rooms.level("inference/encoders.py") < house_rooms.level("inference/training/fit.py")
    assert house_rooms.room("inference/training/fit.py") == ("inference", "training")


def test_every_room_has_a_level() -> None:
    """A new room joins LEVELS or INFERENCE_LEVELS in benchmarks/house_rooms.py."""
    assert {room for rooms in house_rooms.LEVELS for room in rooms} >= set(house_rooms.rooms(PACKAGE))
    inside = {room for rooms in house_rooms.INFERENCE_LEVELS for room in rooms}
    assert inside >= set(house_rooms.rooms(PACKAGE / "inference"))


def test_the_walk_of_x_seldom_returns() -> None:
    walk = house_walk.walk_of_x()
    assert walk[0].file == "inference/training/fit.py"
    assert walk[-1].file.startswith("inference/objectives/")
    assert house_walk.num_returns(walk) <= 4, [step.file for step in walk]


def test_the_picture_of_the_rooms_is_that_of_today() -> None:
    """To draw it anew: python docs/draw_architecture.py."""
    assert draw_architecture.PICTURE.read_text() == draw_architecture.picture()
    assert draw_architecture.PAGE.read_text() == draw_architecture.page()


def test_every_registered_component_is_imported_from_probvae() -> None:
    own = [
        component
        for family in FAMILIES.values()
        for component in family.registry.values()
        if component.__module__.startswith("probvae.")
    ]
    assert len(own) > 40
    missing = [component.__name__ for component in own if getattr(probvae, component.__name__, None) is not component]
    assert not missing
    assert not [component.__name__ for component in own if component.__name__ not in probvae.__all__]


OPTIONS = {field.name: field for field in dataclasses.fields(FitOptions)}


def test_the_signature_of_fit_is_that_of_its_options() -> None:
    keywords = inspect.signature(probvae.fit).parameters.values()
    defaults = {keyword.name: keyword.default for keyword in keywords if keyword.kind is keyword.KEYWORD_ONLY}
    assert {name: field.default for name, field in OPTIONS.items()}.items() <= defaults.items()
    source = inspect.getsource(inspect.getmodule(probvae.fit))
    written = [name for name in OPTIONS if re.search(rf"\b{name}: [^,=]+=", source)]
    assert not written, "an option's default is written in FitOptions alone"


def test_the_docstring_of_fit_has_the_help_of_its_options() -> None:
    text = " ".join((probvae.fit.__doc__ or "").split())
    for name, field in OPTIONS.items():
        assert f" {name} " in text
        assert " ".join(field.metadata["help"].split()).rstrip(".") in text


def test_the_keys_of_a_recipe_are_the_options() -> None:
    from probvae.experiments import recipe

    elsewhere = {"binarization"}  # a key of [data]: it says what the data are too
    assert OPTIONS.keys() - elsewhere <= recipe.KEYS["training"].keys()
    source = inspect.getsource(recipe)
    assert not [name for name in OPTIONS if re.search(rf'"{name}": ', source) and name not in elsewhere]


def test_the_flags_of_the_command_line_are_the_options() -> None:
    from probvae.cli import fit_command

    flags = {parameter.name: parameter for parameter in fit_command.command.params}
    for name, field in OPTIONS.items():
        parameter = flags[name]
        assert isinstance(parameter, click.Option)
        assert (parameter.help or "").startswith(field.metadata["help"].rstrip("."))
    assert not [name for name in OPTIONS if f"--{name.replace('_', '-')}" in inspect.getsource(fit_command)]


def test_pyro_sample_stands_in_two_places() -> None:
    calls = {house_code.short(file, PACKAGE) for file in FILES if "pyro.sample(" in file.read_text()}
    assert calls == {"models/latent.py", "inference/guides/base.py"}


@pytest.mark.parametrize(
    "code",
    ["import probvae", "import probvae.cli", "import probvae.cli.fit_command", "import probvae.cli.compare_command"],
)
def test_import_is_light(code: str) -> None:
    heavy = ["torch", "pyro", "matplotlib", "arviz", "sklearn", "scipy", "pandas", "pyarrow", "torchvision", "zuko"]
    check = f"{code}; import sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_short_fit_imports_no_compiler(tmp_path: Path) -> None:
    """torch's would take more than a second, a tenth of what the default fit takes; the ledger included."""
    code = (
        "import sys\nfrom probvae.cli import main\n"
        "sys.argv = 'probvae fit --data iris --epochs 1 --batch-size 32 --hidden 4 --no-figures --out run'.split()\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' in sys.modules\n"
        "heavy = {'torch._dynamo', 'torch._inductor'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("[]\n")


def test_user_settings_of_waiting_threads_stay() -> None:
    from probvae.foundation.process import wait_briefly

    for given in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}):
        environment = dict(given)
        wait_briefly(environment)
        assert environment == given

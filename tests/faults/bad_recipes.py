"""Recipes that are none: damaged, of wrong types, of impossible sizes, with what no recipe has."""

from random import Random

from probvae.experiments.recipe import COMPONENTS, DEFAULT, KEYS, to_toml
from probvae.inference import Encoder, Guide, Objective
from probvae.models import Decoder, Likelihood, Prior
from tests.faults.damage import damaged

FAMILIES = {family.family: family for family in (Prior, Likelihood, Decoder, Encoder, Guide, Objective)}
# as they stand in a file: most are wrong in most places
VALUES = (
    "0", "-1", "1", "2", "3", "1.5", "-0.5", "0.0", "1e300", "1e-300", "-1e300", "nan", "inf", "-inf", "true",
    "false", "[]", "[0]", "[-1]", "[1.5]", "[8]", "[8, 8]", '["8"]', "[[8]]", "[nan]", "{}", '{ name = 1 }',
    '{ name = "x" }', '""', '"none"', '"mask"', '"learned"', '"x"', '"auto"', '"cuda"', '"cpu"', '"mps:99"',
    '"../../etc"', '"\\u0000"', '"os.system"', '"torch.nn.Linear"', '"__class__"', '"builtins:eval"', '"\\u001b[31m"',
    '"<script>"', "1979-05-27T07:32:00Z", "07:32:00", "1000000000", "1000000000000", "9223372036854775807",
    "-9223372036854775808", "9223372036854775808", "1" + "0" * 30, "1" * 5000, "[1000000000]", "[1000000, 1000000]",
    "0x7fffffff", "1e9", '"' + "y" * 5000 + '"', "[" + "1," * 3000 + "1]", '{ a = { b = { c = 1 } } }', '["a", 1]',
    '"1"', '"0.1"',
)  # fmt: skip
_OPTIONS = (
    "hidden", "num_components", "num_transforms", "num_bins", "scale", "degrees", "variance", "covariance", "rank",
    "activation", "dropout", "layer_norm", "channels", "image_shape", "low", "high", "columns", "num_categories",
    "num_levels", "initial_variance", "minimum_variance", "context_dim", "num_features", "num_steps", "learning_rate",
    "num_particles", "beta", "free_bits", "alpha", "mmd_scale", "length_scale", "latent_dim", "data_dim", "encoder",
    "guide", "model", "self", "__init__", "args", "name",
)  # fmt: skip
_TEXTS = (
    "", "\n", "[", "]", "=", "a", "a =", "= 1", "[model", "[[model]]", "[model]\n[model]", "model = 1", "model = []",
    "[model]\nlatent_dim = 2\nlatent_dim = 3", "[model]\nprior = 'mixture'\nprior.name = 'vamp'", "\ufeff[model]",
    "[model]\nlatent_dim = 0b2", "[model.prior]", "[model.prior]\nname = 1", "[model.prior]\nscale = 1",
    "[data]\nsource = 'digits'\noptions = 1", "[data]\noptions = { num_data = 5 }", "[data.options]\nvariance = -1",
    "[data]\nsource = '/dev/zero'", "[data]\nsource = '.'", "[data]\nsource = ''", "[data]\nsource = 'data.npy/x'",
    "[data]\nsource = 'linear-gaussian'\noptions = { num_data = 1000000000 }",
    "[data]\nsource = 'linear-gaussian'\noptions = { data_dim = 1000000000, num_data = 3 }",
    "[data]\nsource = 'linear-gaussian'\noptions = { latent_dim = 1000000000 }",
    "[data]\nsource = 'linear-gaussian'\noptions = { variance = 1e300 }",
    "[data]\nsource = 'linear-gaussian'\noptions = { seed = 123456789012345678901234567890 }",
    "[data]\nsource = 'mnist'\ndata_dir = '\\u0000'", "[other]\na = 1", "[MODEL]\na = 1", '"" = 1', '["a.b"]\nc = 1',
    "[training]\nepochs = 1_0_", "[training]\nseed = -1", "# " + "x" * 100_000, "\x00" * 50, "\r\r\r",
    "<html></html>", '{"model": {}}', "model:\n  latent_dim: 2\n",
)  # fmt: skip


def toml(rng: Random) -> bytes:
    """A recipe file."""
    if rng.random() < 0.01:
        return _endless(rng)
    make = rng.choice([_damaged_toml, _wrong_value, _wrong_value, _wrong_value, _wrong_option, _strange_text, _nested])
    return make(rng)


def setting(rng: Random) -> str:
    """An argument of ``--set``."""
    if rng.random() < 0.2:
        return rng.choice([
            "", "=", "a", "a=", "a.b", "model=", "model.=1", ".=1", "model.prior.=1", "a.b=1", "data.source=",
            "training.epochs=", "model." + "x." * 3000 + "y=1", "model.prior." + "a." * 2000 + "b=1",
            "model.latent_dim=" + "[" * 3000, "training.epochs=1\n[model]\nlatent_dim = 5",
            "training.seed=" + "9" * 5000, "\udcff.a=1", "model.prior=\udcff", "data.source=\x1b[31m",
        ])  # fmt: skip
    key, value = _place(rng), rng.choice(VALUES)
    return f"{key}={value}"


def _damaged_toml(rng: Random) -> bytes:
    return damaged(to_toml(DEFAULT).encode(), rng)


def _wrong_value(rng: Random) -> bytes:
    table, key = _place(rng).split(".", 1)
    return f"[{table}]\n{key} = {rng.choice(VALUES)}\n".encode()


def _wrong_option(rng: Random) -> bytes:
    """A component that there is, with one to three options of any sort."""
    table = rng.choice(list(COMPONENTS))
    role = rng.choice(COMPONENTS[table])
    lines = [f"{option} = {rng.choice(VALUES)}" for option in rng.sample(_OPTIONS[:-1], rng.choice([1, 1, 2, 3]))]
    return "\n".join([f"[{table}.{role}]", f'name = "{_component(role, rng)}"', *lines]).encode()


def _component(role: str, rng: Random) -> str:
    return rng.choice([*sorted(FAMILIES[role].registry), "nothing"])


def _place(rng: Random) -> str:
    """A key of a recipe, or of a component's options."""
    table = rng.choice(list(KEYS))
    if table in COMPONENTS and rng.random() < 0.7:
        role = rng.choice(COMPONENTS[table])
        return f"{table}.{role}" + rng.choice(["", f".{rng.choice(_OPTIONS)}"])
    return f"{table}.{rng.choice([*KEYS[table], 'nothing'])}"


def _strange_text(rng: Random) -> bytes:
    text = rng.choice(_TEXTS)
    return text.encode(rng.choice(["utf-8"] * 6 + ["utf-16", "latin-1"]), "replace")


def _nested(rng: Random) -> bytes:
    depth = rng.choice([20, 200, 5000])
    return rng.choice(
        [
            "a = " + "[" * depth + "]" * depth,
            "a = " + "{a=" * depth + "1" + "}" * depth,
            "model.prior." + "a." * depth + "b = 1",
            "[model.prior" + ".a" * depth + "]\nb = 1",
            "[data.options" + ".a" * depth + "]\nb = 1",
            "[data]\noptions = { a = " + "[" * depth + "]" * depth + " }",
            "[model]\ncondition = " + "[" * depth + "]" * depth,
            "".join(f"[model.t{number}]\n" for number in range(depth)),
        ]
    ).encode()


def _endless(rng: Random) -> bytes:
    """Megabytes of it."""
    return rng.choice(
        [b"# " + b"x" * 3_000_000, b"[model]\n" + b"a = 1\n" * 10**6, b"[a]\n" * 10**6, b"[[model]]\n" * 10**6]
    )

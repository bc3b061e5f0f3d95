"""Nothing in the package can run code that is in a file or comes over a network."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import probvae

PACKAGE = Path(probvae.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# `exec` of the source that torch.fx has just written for a traced step; program_file runs what the user names
ALLOWED = {
    ("inference/compiled/recording.py", "exec"),
    ("inference/programs/program_file.py", "exec_module"),
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "yaml"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "exec_module", "compile", "__import__", "system", "popen", "mktemp"),
    *("all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list", "send_object_list"),
    *("read_pickle", "load_state_dict_from_url", "load_source", "run_path", "run_module"),
}
# a call by its last two names, and the argument that it must have
REQUIRED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
FORBIDDEN_ARGUMENTS = {"shell": True, "allow_pickle": True, "weights_only": False}
# these make no code object of a text
OTHER_COMPILES = {"torch.compile", "_inductor.compile", "re.compile"}


def faults(source: str, name: str = "it.py") -> list[str]:
    """What is not allowed in ``source``, a line each."""
    return [found for node in ast.walk(ast.parse(source)) for found in _faults(node, name)]


def _faults(node: ast.AST, name: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"imports {a.name}" for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES)
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
        yield f"imports {node.module}"
    if isinstance(node, ast.Call):
        yield from _faults_of_call(node, name)


def _faults_of_call(node: ast.Call, name: str) -> Iterator[str]:
    called = ast.unparse(node.func)
    last = called.rsplit(".", 1)[-1]
    is_method_eval = called.endswith(".eval")  # nn.Module's, which takes no text
    if last in FORBIDDEN_CALLS and (name, last) not in ALLOWED and called not in OTHER_COMPILES and not is_method_eval:
        yield f"calls {called}"
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
    for function, (argument, value) in REQUIRED.items():
        if called in (function, function.replace("np.", "numpy.")) and given.get(argument) is not value:
            yield f"calls {called} without {argument}={value}"
    yield from (f"gives {a}={v}" for a, v in FORBIDDEN_ARGUMENTS.items() if a in given and given[a] is v)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_of_the_package_can(file: Path) -> None:
    assert faults(file.read_text(encoding="utf-8"), file.relative_to(PACKAGE).as_posix()) == []


def test_what_is_allowed_is_there() -> None:
    for name, call in ALLOWED:
        assert any(call in found for found in faults((PACKAGE / name).read_text(encoding="utf-8"), "elsewhere.py"))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import dill",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file)",
        "numpy.load(file, allow_pickle=True)",
        "np.load(file, mmap_mode='r')",
        "eval(text)",
        "exec(text)",
        "compile(text, '', 'exec')",
        "yaml.load(text)\nimport yaml",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
        "dist.all_gather_object(values, value)",
        "torch.distributed.broadcast_object_list(values)",
        "tempfile.mktemp()",
    ],
)
def test_faults_are_seen(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    ["vae.eval()", "re.compile('a')", "torch.load(f, weights_only=True)", "np.load(f, allow_pickle=False)"],
)
def test_what_is_no_fault(source: str) -> None:
    assert not faults(source)

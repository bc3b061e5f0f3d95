"""What is counted in the code of each file: lines, functions, tensor docstrings, private names, riddles.

house.py has the definitions.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "probvae"
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 350, 60, 10
# methods of named tuples, which Python documents in spite of their underscore
_PUBLIC_UNDERSCORES = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}
# what torch's own distributions use to write a subclass
_FOR_SUBCLASSES = {"_validate_args", "_validate_sample", "_get_checked_instance"}
_RIDDLE = re.compile(r"(Of|In|What|Where|Whether)\b", re.IGNORECASE)
_SIZE = r"(?:\.\.\.|\*?[A-Za-z](?:'|\d)?|[a-z]+(?:_[a-z]+)+|\d+)"
_AXIS = rf"{_SIZE}(?:(?: or | ?[-+*/x×] ?| ){_SIZE})*"
_SHAPE = re.compile(rf"\((?:{_AXIS}(?:, ?{_AXIS})*,?)?\)|\b(?:scalar|shape)s?\b")


@dataclass(frozen=True)
class Function:
    """A function or method: where it stands, and what is counted of it."""

    place: str
    code_lines: int
    num_parameters: int
    takes_tensors: bool
    names_shape: bool
    is_public: bool


def files(package: Path = PACKAGE) -> list[Path]:
    """All Python files of the package."""
    return sorted(package.rglob("*.py"))


def folders(package: Path = PACKAGE) -> list[Path]:
    """All folders with code."""
    return sorted({file.parent for file in files(package)})


def short(path: Path, package: Path = PACKAGE) -> str:
    """The path inside the package, as the rules and the tables print it."""
    return path.relative_to(package).as_posix()


@cache
def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text())


@cache
def code_lines(file: Path) -> frozenset[int]:
    """The numbers of the lines that carry code."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in _docstrings(tree_of(file)):
        lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(lines)


def _docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def num_lines(file: Path) -> int:
    """All lines of a file."""
    return len(file.read_text().splitlines())


def long_files(package: Path = PACKAGE, most: int = MOST_LINES) -> dict[str, int]:
    """The files with more than ``most`` lines."""
    lengths = {short(file, package): num_lines(file) for file in files(package)}
    return {name: length for name, length in lengths.items() if length > most}


@cache
def functions(package: Path = PACKAGE) -> tuple[Function, ...]:
    """Every function and method, nested ones too."""
    methods = _documented_methods(package)
    found = []
    for file in files(package):
        for owners, node in _definitions(tree_of(file), ()):
            names = (*(owner.name for owner in owners), node.name)
            own = [argument for argument in _arguments(node) if argument.arg not in ("self", "cls")]
            annotations = [argument.annotation for argument in own] + [node.returns]
            text = ast.get_docstring(node)
            if text is None and owners and isinstance(owners[-1], ast.ClassDef):
                text = _inherited(owners[-1].name, node.name, methods, frozenset())
            found.append(
                Function(
                    f"{short(file, package)}:{node.lineno} {'.'.join(names)}",
                    sum(node.lineno <= line <= (node.end_lineno or 0) for line in code_lines(file)),
                    len(own),
                    any(_mentions_tensor(annotation) for annotation in annotations),
                    bool(_SHAPE.search(text or "")),
                    all(not name.startswith("_") or name == "__call__" for name in names)
                    and all(isinstance(owner, ast.ClassDef) for owner in owners),
                )
            )
    return tuple(found)


def _definitions(node: ast.AST, owners: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield owners, child
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _definitions(child, (*owners, child) if inside else owners)


def _mentions_tensor(annotation: ast.expr | None) -> bool:
    text = "" if annotation is None else ast.unparse(annotation)
    # a dictionary of a module's tensors has no one shape
    return bool(re.search(r"\bTensor\b", text.replace("dict[str, Tensor]", "")))


def _arguments(node: ast.FunctionDef) -> list[ast.arg]:
    given = node.args
    starred = [argument for argument in (given.vararg, given.kwarg) if argument is not None]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *starred]


def _documented_methods(package: Path) -> dict[str, tuple[list[str], dict[str, str | None]]]:
    """The bases of each class, and the docstrings of its methods."""
    classes = {}
    for file in files(package):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).split(".")[-1].split("[")[0] for base in node.bases]
                own = {
                    child.name: ast.get_docstring(child) for child in node.body if isinstance(child, ast.FunctionDef)
                }
                classes[node.name] = (bases, own)
    return classes


def _inherited(
    owner: str, method: str, methods: dict[str, tuple[list[str], dict[str, str | None]]], seen: frozenset[str]
) -> str | None:
    if owner not in methods or owner in seen:
        return None
    bases, own = methods[owner]
    inherited = (_inherited(base, method, methods, seen | {owner}) for base in bases)
    return own.get(method) or next((text for text in inherited if text), None)


def long_functions(package: Path = PACKAGE, most: int = MOST_FUNCTION_LINES) -> dict[str, int]:
    """The functions with more than ``most`` code lines."""
    return {f.place: f.code_lines for f in functions(package) if f.code_lines > most}


def wide_functions(package: Path = PACKAGE, most: int = MOST_PARAMETERS) -> dict[str, int]:
    """The functions with more than ``most`` parameters."""
    return {f.place: f.num_parameters for f in functions(package) if f.num_parameters > most}


def tensor_functions(package: Path = PACKAGE) -> dict[str, bool]:
    """For each public function that takes or gives tensors: does its docstring name a shape?"""
    return {f.place: f.names_shape for f in functions(package) if f.is_public and f.takes_tensors}


def private_places(package: Path = PACKAGE) -> dict[str, list[str]]:
    """Private names of other packages that each file uses, with their lines."""
    defined = {name for file in files(package) for name in _defined_names(tree_of(file))}
    found = {short(file, package): _private_names(tree_of(file), defined) for file in files(package)}
    return {name: places for name, places in found.items() if places}


def scattered_names(package: Path = PACKAGE) -> dict[str, list[str]]:
    """The private names that stand in more than one file, with these files; each should have one that holds it."""
    found: dict[str, set[str]] = {}
    for file, places in private_places(package).items():
        for place in places:
            name = next(part for part in place.split(" ", 1)[1].split(".")[::-1] if _private(part))
            found.setdefault(name, set()).add(file)
    return {name: sorted(used) for name, used in found.items() if len(used) > 1 and name not in _FOR_SUBCLASSES}


def _defined_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            yield node.attr
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _is_own(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def _private_names(tree: ast.Module, defined: set[str]) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in _FOREIGN:
            found += [
                f"{node.lineno} {node.module}.{a.name}" for a in node.names if _private(f"{node.module}.{a.name}")
            ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] in _FOREIGN]
            found += [f"{node.lineno} {name}" for name in names if _private(name)]
        elif isinstance(node, ast.Attribute) and _private(node.attr) and node.attr not in defined:
            found.append(f"{node.lineno} {ast.unparse(node)}")
    return found


_FOREIGN = ("torch", "pyro", "zuko", "numpy", "scipy", "matplotlib", "arviz", "click")


def _private(name: str) -> bool:
    parts = set(name.split(".")) - _PUBLIC_UNDERSCORES
    return any(part.startswith("_") and not part.startswith("__") for part in parts)


def riddles(folder: Path = PACKAGE) -> list[str]:
    """Comments and docstrings that begin with Of, In, What, Where or Whether."""
    found = []
    for file in files(folder):
        texts = [(node.lineno, str(node.value).strip()) for node in _docstrings(tree_of(file))]
        texts += _comments(file)
        found += [f"{short(file, folder)}:{n} {text.splitlines()[0]}" for n, text in texts if _RIDDLE.match(text)]
    return sorted(found)


def _comments(file: Path) -> list[tuple[int, str]]:
    """The first line of each block of comments, and each comment behind code."""
    found = []
    previous = -1
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            if not (alone and token.start[0] == previous + 1):
                found.append((token.start[0], token.string.lstrip("#: ")))
            previous = token.start[0] if alone else -1
    return found

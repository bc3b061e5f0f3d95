"""What is counted in the tree: rooms, imports, circles, levels, file names, folders.

house.py has the definitions.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from house_code import PACKAGE, files, folders, short, tree_of

# Lowest first: a room may import rooms of lower levels and itself. Rooms of one level do not know each other.
LEVELS = (
    ("errors",),
    ("foundation",),
    ("storage",),
    ("models",),
    ("data",),
    ("inference",),
    ("diagnostics",),
    ("experiments",),
    ("applications",),
    ("report",),
    ("estimators", "testing"),
    ("cli",),
    ("__main__", "__init__"),
)
INFERENCE_LEVELS = (
    ("densities",),
    ("linear",),
    ("encoders",),
    ("guides",),
    ("model_file",),
    ("pair",),
    ("objectives",),
    ("compiled",),
    ("evaluation", "programs"),
    ("evidence",),
    ("training",),
    ("__init__",),
)
FEWEST_FILES, MOST_FILES = 3, 15
FEWEST_PAGE_LINES = 5


def module_files(package: Path = PACKAGE) -> dict[str, Path]:
    """The file of each module by its full name."""
    names = {}
    for file in files(package):
        parts = (package.name, *file.relative_to(package).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The files that each file imports."""
    modules = module_files(package)
    graph = {}
    for name, file in modules.items():
        targets = {modules[target] for target in _imported(tree_of(file), name, file, modules)}
        graph[short(file, package)] = {short(target, package) for target in targets - {file}}
    return graph


def _imported(tree: ast.Module, name: str, file: Path, modules: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + (file.stem == "__init__")]
                base = ".".join([*parts, node.module] if node.module else parts)
            if base in modules:
                longer = [f"{base}.{alias.name}" for alias in node.names]
                yield from (target if target in modules else base for target in longer)


def circles(package: Path = PACKAGE) -> list[list[str]]:
    """Groups of files that import each other, directly or through others (Tarjan's strong components)."""
    graph = imports(package)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(file: str) -> None:
        index[file] = low[file] = len(index)
        stack.append(file)
        for target in sorted(graph[file]):
            if target not in index:
                visit(target)
                low[file] = min(low[file], low[target])
            elif target in stack:
                low[file] = min(low[file], index[target])
        if low[file] == index[file]:
            group = stack[stack.index(file) :]
            del stack[stack.index(file) :]
            if len(group) > 1:
                found.append(sorted(group))

    for file in sorted(graph):
        if file not in index:
            visit(file)
    return sorted(found)


def level(file: str) -> tuple[int, int]:
    """The level of a file of the package: in the package, and inside ``inference``. KeyError where it has none."""
    parts = Path(file).with_suffix("").parts
    outer = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
    inner = {room: number for number, rooms in enumerate(INFERENCE_LEVELS) for room in rooms}
    return outer[parts[0]], inner[parts[1]] if parts[0] == "inference" else 0


def room(file: str) -> tuple[str, ...]:
    """The room of a file: the folder or module at the top of the package, or of ``inference``."""
    parts = Path(file).with_suffix("").parts
    return parts[:2] if parts[0] == "inference" else parts[:1]


def upward_imports(package: Path = PACKAGE) -> list[str]:
    """Imports of a higher room, or of another one on the same level: "importer -> imported"."""
    return sorted(
        f"{file} -> {target}"
        for file, targets in imports(package).items()
        for target in targets
        if room(target) != room(file) and level(target) >= level(file)
    )


def rooms(folder: Path) -> list[str]:
    """The rooms that stand directly in ``folder``."""
    inside = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return sorted(path.stem for path in inside if path.stem not in ("__init__", "__main__"))


def repeated_names(package: Path = PACKAGE) -> dict[str, int]:
    """File names that occur more than once, ``base.py`` and ``__init__.py`` apart."""
    counts = Counter(file.name for file in files(package) if file.name not in ("base.py", "__init__.py"))
    return {name: count for name, count in counts.items() if count > 1}


def loose_underscores(package: Path = PACKAGE) -> list[str]:
    """Modules with a leading underscore that are not in the folder of a family, which is one with a ``base.py``."""
    hidden = [file for file in files(package) if file.name.startswith("_") and not file.name.startswith("__")]
    return [short(file, package) for file in hidden if not (file.parent / "base.py").is_file()]


def badly_filled_folders(package: Path = PACKAGE) -> dict[str, int]:
    """Folders with fewer than 3 or more than 15 Python files, ``__init__`` among them."""
    counts = {short(folder, package): len(list(folder.glob("*.py"))) for folder in folders(package)}
    return {name: count for name, count in counts.items() if not FEWEST_FILES <= count <= MOST_FILES}


def folders_without_page(package: Path = PACKAGE) -> list[str]:
    """Folders whose ``__init__`` has no docstring of five lines that says what is in, what is out, and the door."""
    missing = []
    for folder in folders(package):
        text = ast.get_docstring(tree_of(folder / "__init__.py")) or ""
        if "TODO" in text or len([line for line in text.splitlines() if line.strip()]) < FEWEST_PAGE_LINES:
            missing.append(short(folder, package))
    return missing

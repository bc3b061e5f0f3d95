"""The speed benchmark's numbers as Markdown."""

from collections.abc import Iterable
from typing import Any

BEGIN, END = "<!-- numbers: begin (benchmarks/speed.py writes them) -->", "<!-- numbers: end -->"
TITLES = {
    "pyro": "Pyro, `SVI` with `Trace_ELBO`",
    "pyro-example": "the structure of Pyro's VAE example (`DataLoader`)",
    "pyro-jit": "Pyro, `JitTrace_ELBO`",
    "pythae": "pythae",
    "eager": "PyTorch by hand, Adam",
    "fused": "PyTorch by hand, fused Adam",
    "compiled": "PyTorch by hand, `torch.compile`, fused Adam",
    "numpyro": "NumPyro, jitted scan over minibatches",
    "probvae": "**probvae**, `compile=False`",
    "probvae graph": "**probvae**, traced graph",
    "probvae compiled": "**probvae**, compiled",
    "products": "the matrix products alone",
}
# the share of the cores that other processes took in the median turn
NOISY = 0.1
SIZES = {"num_data": "N", "data_dim": "D", "latent_dim": "d", "batch_size": "batch", "num_draws": "K"}


def written(text: str, numbers: str) -> str:
    """``text`` with the numbers between its two marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{numbers}\n{END}{rest.split(END)[1]}"


def markdown(result: dict[str, Any]) -> str:
    """All tables."""
    parts = [_provenance(result["machine"])]
    steps = sorted(result["steps"].items(), key=lambda item: int(item[0]))
    parts += [_steps(threads, by_workload) for threads, by_workload in steps]
    most = steps[-1][1]
    parts += [_costs(most)]
    if "evidence" in result:
        parts.append(_evidence(result["evidence"]))
    if "scaling" in result:
        parts.append(_scaling(result["scaling"]))
    if "quality" in result:
        parts.append(_quality(result["quality"]))
    return "\n".join(parts)


def _provenance(machine: dict[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {machine['date']}; other "
        f"work on the machine: a load of {machine['load']:.1f} before and {machine['load_after']:.1f} at the end.\n"
    )


def _steps(threads: str, by_workload: dict[str, Any]) -> str:
    names = _names(by_workload.values())
    rows = [[TITLES[name], *(_step(rows.get(name)) for rows in by_workload.values())] for name in names]
    many = "" if threads == "1" else "s"
    title = f"Milliseconds a step, {threads} thread{many} (in brackets: times probvae compiled)"
    remark = "\n\\* other processes took more than a tenth of the cores in most turns\n"
    noisy = any(cell.endswith("*") for row in rows for cell in row[1:])
    return f"### {title}\n\n{_table(['', *by_workload], rows)}{remark if noisy else ''}"


def _step(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "error" in row:
        return "not run"
    ratio, noisy = row["of_reference"], row["others"] > NOISY
    told = f"{row['milliseconds']:.3g}" + ("" if ratio is None else f" ({ratio:.2g})")
    return f"{told} *" if noisy else told


def _costs(by_workload: dict[str, Any]) -> str:
    rows = []
    for name in _names(by_workload.values()):
        cells = [workload.get(name) for workload in by_workload.values()]
        told = [f"{c['build_seconds']:.1f} s, {c['megabytes']:.0f} MB" if c and "error" not in c else "" for c in cells]
        rows.append([TITLES[name], *told])
    title = "Seconds until the first steps are done, without imports; peak memory of the process, with the data"
    return f"### {title}\n\n{_table(['', *by_workload], rows)}"


def _evidence(found: dict[str, Any]) -> str:
    rows = []
    for threads, entry in sorted(found.items(), key=lambda item: int(item[0])):
        told = [_rate(entry, name) for name in ("evidence", "evidence products")]
        rows.append([threads, *told])
    title = "log p(x) by importance sampling, L_100 on W1's model: billions of operations a second"
    return f"### {title}\n\n{_table(['threads', '`log_evidence`', TITLES['products']], rows)}"


def _rate(entry: dict[str, Any], name: str) -> str:
    row = entry["programs"][name]
    return "not run" if "error" in row else f"{entry['operations'] / row['milliseconds'] / 1e6:.0f}"


def _scaling(found: list[dict[str, Any]]) -> str:
    names = _names(entry["programs"] for entry in found)
    rows = []
    for entry in found:
        told = [_scaled(entry["programs"].get(name)) for name in names]
        rows.append([f"{SIZES[entry['size']]} = {entry['value']}", *told])
    title = "Scaling: W1 with one size changed at a time, two threads; milliseconds a step, peak memory"
    return f"### {title}\n\n{_table(['', *(TITLES[name] for name in names)], rows)}"


def _scaled(row: dict[str, Any] | None) -> str:
    return "not run" if row is None or "error" in row else f"{row['milliseconds']:.3g} ms, {row['megabytes']:.0f} MB"


def _quality(found: dict[str, Any]) -> str:
    rows = [
        [TITLES[name], f"{row['difference']:+.1e}", f"{row['standard_error']:.1e}"]
        for name, row in found["differences"].items()
    ]
    title = (
        f"The ELBO of held-out data after {found['epochs']} epochs, less plain Pyro's ({found['pyro']:.2f} nats per "
        f"datum), mean over {found['num_seeds']} paired seeds"
    )
    return f"### {title}\n\n{_table(['', 'nats per datum', 's.e.'], rows)}"


def _names(groups: Iterable[dict[str, Any]]) -> list[str]:
    there = {name for group in groups for name in group}
    return [name for name in TITLES if name in there]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

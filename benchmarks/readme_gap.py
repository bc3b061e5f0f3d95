"""Make the README's numbers of the posterior gap: the default `probvae fit`, and its ledger on all held-out digits.

    python benchmarks/readme_gap.py [--check]

writes the sentence between the marks in README.md, and prints it; with --check it only says whether the README's
numbers are within three standard errors of today's (another machine's rounding makes another fit).
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from probvae.diagnostics.verdicts import with_error
from probvae.experiments.recipe import resolve
from probvae.experiments.run import run_recipe
from probvae.experiments.summary import ledger_of

README = Path(__file__).parent.parent / "README.md"
SENTENCE = re.compile(r"<!-- gap: begin.*?-->\n(.*?)<!-- gap: end -->", re.DOTALL)
_BEGIN, _END = "<!-- gap: begin (benchmarks/readme_gap.py writes it) -->\n", "<!-- gap: end -->"


def measure() -> dict[str, Any]:
    """The summary of the ledger of a default run on all its held-out data."""
    with tempfile.TemporaryDirectory() as home:
        experiment = run_recipe(resolve([]), Path(home) / "run", progress=False, ledger=False)
        assert experiment is not None
        return ledger_of(experiment.vae, experiment.held_out, seed=0)[1]


def sentence(gap: dict[str, Any]) -> str:
    """The sentence for a ledger's summary.

    >>> part = {"value": 4.3, "standard_error": 0.4}
    >>> print(sentence({"total": part, "approximation": part, "amortisation": part, "num_data": 359}).splitlines()[0])
    On the 359 held-out digits the guide loses 4.30 ± 0.40 nats per datum (± over the data) against the exact posterior:
    """
    told = {name: with_error(gap[name]["value"], gap[name]["standard_error"]) for name in _PARTS}
    return (
        f"On the {gap['num_data']} held-out digits the guide loses {told['total']} nats per datum (± over the data) "
        f"against the exact posterior:\n{told['approximation']} because it is diagonal, {told['amortisation']} because "
        "of the encoder."
    )


_PARTS = ("total", "approximation", "amortisation")


def numbers_of(text: str) -> list[tuple[float, float]]:
    """Values with their standard errors in a sentence.

    >>> numbers_of("loses 4.30 ± 0.40 nats")
    [(4.3, 0.4)]
    """
    return [(float(value), float(error)) for value, error in re.findall(r"([\d.]+) ± ([\d.]+)", text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    text, gap = README.read_text(encoding="utf-8"), measure()
    found = SENTENCE.search(text)
    assert found is not None, "README.md: the marks of the sentence are gone"
    print(sentence(gap))
    if not options.check:
        README.write_text(SENTENCE.sub(lambda _: _BEGIN + sentence(gap) + _END, text), encoding="utf-8")
        return
    pairs = zip(numbers_of(found[1]), (gap[name] for name in _PARTS), strict=True)
    far = [then for then, now in pairs if abs(then[0] - now["value"]) > 3 * max(then[1], now["standard_error"])]
    sys.exit(f"README.md: {far} are no longer true" if far else 0)


if __name__ == "__main__":
    main()

"""Write what the documentation derives from the code: docs/metrics.md and the README's flags.

``--check`` writes nothing and fails when a file is not what the code makes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from microvm_exporter.drift import RULES, SEVERITIES, Kind
from microvm_exporter.metrics import METRICS
from microvm_exporter.usage import flags_table

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "tests" / "golden" / "demo" / "report.txt"
SHOWN = ("mail.internal", "on the host")
"""The groups of the demo's report that the README shows."""

METRICS_INTRO = """\
# Metrics

Made by `make docs` from `exporter/microvm_exporter/metrics.py`. While a source cannot be read, the
metrics that need it are absent: a zero means that it was looked for and not found.
"""

KINDS_INTRO = """
The exporter's own process is there too, as `process_*`: processor time, memory, open files, and
when it started.

# Kinds of drift

The values of the label `kind` of `microvm_drift_findings` and `microvm_drift_finding`. N is the
name of a MicroVM, `STATE` is the state directory of all of them, and N is known when it is declared
or imperative ([how drift is judged](../README.md#how-drift-is-judged)).

A kind is judged only when all of its sources could be read. *Twice*: it counts once two looks in a
row, an interval apart, have seen it; looks that events bring about do not count. What appears while
systemd has a job pending for the MicroVM counts after a minute.
"""


def main() -> int:
    readme = ROOT / "README.md"
    wanted = {
        ROOT / "docs" / "metrics.md": "\n".join(metrics_page()) + "\n",
        readme: section(section(readme.read_text(), "flags", flags_table()), "report", excerpt()),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(
                f"{path.relative_to(ROOT)} is not what the code makes: make docs", file=sys.stderr
            )
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path])
    return 0


def section(text: str, name: str, content: str) -> str:
    """Replace what stands between the two marks of that name."""
    begin, end = f"<!-- {name}: made by `make docs` -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def excerpt() -> str:
    """The head of the demo's report, and some groups of it."""
    headline, counts, *groups = DEMO.read_text().rstrip().split("\n\n")
    shown = [group for group in groups if group.split("\n")[0] in SHOWN]
    report = "\n\n".join(["$ microvm-exporter check\n" + headline, counts, "[…]", *shown])
    return f"```\n{report}\n```\n"


def metrics_page() -> Iterator[str]:
    yield METRICS_INTRO
    yield "| metric | type | labels | meaning |"
    yield "| --- | --- | --- | --- |"
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.type} | {labels} | {metric.help} |"
    yield KINDS_INTRO
    yield "| kind | severity | fires when | sources |"
    yield "| --- | --- | --- | --- |"
    for kind in Kind:
        rule = RULES[kind]
        sources = ", ".join(sorted(rule.sources))
        fires = first_paragraph(rule.find) + (" *Twice.*" if rule.twice else "")
        yield f"| `{kind}` | {SEVERITIES[kind]} | {fires} | {sources} |"
    yield "\n`condition_unmet` of `microvm@` itself is critical."


def first_paragraph(thing: object) -> str:
    text = inspect.getdoc(thing) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")


if __name__ == "__main__":
    sys.exit(main())

"""The table of findings with what to do about each: of a host, or of one VM."""

from __future__ import annotations

from microvm_dashboards import links
from microvm_dashboards.expressions import finding_remedies, findings_since, ranked_findings
from microvm_dashboards.mappings import KINDS, REMEDY_TEXTS, SEVERITIES, SINCE
from microvm_dashboards.panels import Column, Panel, Text, panel_table
from microvm_dashboards.queries import as_table

__all__ = ["findings_table"]


def findings_table(text: Text, scope: str, *, with_vm: bool) -> Panel:
    """Give the worst first; where nothing is found or could not be looked at, a row says so."""
    vm = Column("vm", "MicroVM", width=100, links=[links.to_vm("__data.fields.vm")])
    return panel_table(
        text,
        [as_table(ask(scope)) for ask in (ranked_findings, findings_since, finding_remedies)],
        [
            Column("Value #A", "Severity", width=80, mappings=SEVERITIES, filled=True),
            Column("kind", "Kind", width=150, mappings=KINDS),
            *((vm,) if with_vm else ()),
            Column("object", "Object", wrapped=True),
            Column("Value #C", "What to do", mappings=REMEDY_TEXTS, wrapped=True),
            Column("Value #B", "Since", width=120, unit="dateTimeFromNow", mappings=SINCE),
        ],
        sort=("Severity",),
        first_by="kind",
        paged=with_vm,
    )

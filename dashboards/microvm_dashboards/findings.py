"""The table of findings, with what to do about each: of a host, of some kinds or of one VM."""

from __future__ import annotations

from collections.abc import Collection

from microvm_dashboards import links
from microvm_dashboards.expressions import ranked_findings, since
from microvm_dashboards.mappings import KINDS, REMEDY_TEXTS, SEVERITIES
from microvm_dashboards.panels import Column, Panel, Text, panel_table
from microvm_dashboards.queries import as_table
from microvm_exporter.drift.kinds import Kind

__all__ = ["findings_table"]


def findings_table(
    text: Text, scope: str, kinds: Collection[Kind] | None = None, *, of_vm: bool = False
) -> Panel:
    """Give the worst first; where nothing is found or could not be looked at, a row says so."""
    vm = Column("vm", "MicroVM", width=130, links=[links.to_vm("__data.fields.vm")])
    return panel_table(
        text,
        [as_table(ranked_findings(scope, kinds)), as_table(since(scope, kinds))],
        [
            Column("Value #A", "Severity", width=90, mappings=SEVERITIES, filled=True),
            Column("kind", "Kind", width=165, mappings=KINDS),
            *(() if of_vm else (vm,)),
            Column("object", "Object", width=260, wrapped=True),
            Column("remedy", "What to do", mappings=REMEDY_TEXTS, wrapped=True),
            Column("Value #B", "Seen since", width=120, unit="dateTimeFromNow"),
        ],
        sort=("Severity",),
        first_by="kind",
    )

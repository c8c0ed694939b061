"""The variables above the panels."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

from microvm_dashboards.queries import DATASOURCE
from microvm_dashboards.selectors import FLEET, HOST

__all__ = ["Variable", "of_fleet", "of_host", "of_vm"]

Variable = DatasourceVariable | QueryVariable

_ALWAYS_THERE: Final = "microvm_exporter_build_info"
_LABEL_VALUES: Final = 1  # of the Prometheus data source's kinds of variable queries


def of_fleet() -> list[Variable]:
    """Data source, cluster and job. Without a label `cluster` all of them is all there is."""
    cluster = _values("cluster", "Cluster", f"label_values({_ALWAYS_THERE}, cluster)")
    everything = VariableOption(selected=True, text="All", value="$__all")
    return [
        DatasourceVariable("datasource").label("Data source").type("prometheus"),
        cluster.multi(True).include_all(True).all_value(".*").current(everything),
        _values("job", "Job", f'label_values({_ALWAYS_THERE}{{cluster=~"$cluster"}}, job)'),
    ]


def of_host() -> list[Variable]:
    """The same and a host, also one that does not answer."""
    return [*of_fleet(), _values("instance", "Host", f"label_values(up{{{FLEET}}}, instance)")]


def of_vm() -> list[Variable]:
    """The same and a MicroVM, also one of which only a finding is left."""
    known = f'{{__name__=~"microvm_vm_info|microvm_drift_finding", {HOST}}}'
    return [*of_host(), _values("vm", "MicroVM", f"label_values({known}, vm)")]


def _values(name: str, label: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"qryType": _LABEL_VALUES, "query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )

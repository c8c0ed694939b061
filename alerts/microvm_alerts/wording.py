"""Annotations: the words, links and shell words that Prometheus fills in when an alert fires."""

from __future__ import annotations

from microvm_alerts.settings import Settings

__all__ = ["INSTANCE", "VM", "links", "shell_word"]

INSTANCE = "{{ $labels.instance }}"
VM = "{{ $labels.vm }}"


def shell_word(text: str) -> str:
    """Quote a word for a POSIX shell; ``{vm}`` and ``{object}`` in it are the alert's labels.

    Who broke out of a guest can choose the names of VMs, paths and devices. In single quotes
    nothing but a single quote is special to a shell.
    """
    labels = {
        name: f"""{{{{ reReplaceAll "'" "'\\\\''" $labels.{name} }}}}"""
        for name in ("vm", "object")
    }
    return f"'{text.format(**labels)}'"


def links(settings: Settings, alert: str, dashboard: str, *variables: str) -> dict[str, str]:
    """Give the URLs of the runbook, and of the dashboard with the alert's labels as variables."""
    values = "&".join(f"var-{name}={{{{ $labels.{name} | urlquery }}}}" for name in variables)
    # Of a label with another name the dashboards would look for one that no series has.
    if settings.cluster_label == "cluster":
        values += "{{ with $labels.cluster }}&var-cluster={{ . | urlquery }}{{ end }}"
    query = f"?{values}" if variables else ""
    return {
        "runbook_url": f"{settings.runbook_url.rstrip('/')}/{alert}.md",
        "dashboard_url": f"{settings.grafana_url.rstrip('/')}/d/{dashboard}{query}",
    }

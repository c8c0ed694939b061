"""The dashboards: fleet, host, VM and exporter, as code.

``python -m microvm_dashboards`` writes them as classic JSON, which Grafana's file provisioning
takes, beside this package.
"""

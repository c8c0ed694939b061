"""Simulated hosts, told by the exporter's own code: a history of six, a load of a thousand."""

"""Prometheus exporter for the drift between declared MicroVMs and what a host has."""

__version__ = "0.1.0"

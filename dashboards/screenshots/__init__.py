"""The dashboards as pictures: drawn by Grafana's own components, on what a real Prometheus answers.

Genuine (of Grafana's npm packages): panel frames, stat, time series, table; their themes, fonts
and icons; units, value mappings, thresholds, overrides, transformations, data links.
Drawn here, because Grafana keeps them out of its packages: the grid, the bars of a state timeline,
annotation marks, the line with variables and time. Not at all: menus, tooltips, repeated panels,
migrations of old dashboards.
"""

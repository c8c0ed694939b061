"""The Prometheus rules of microvm-exporter, made from one set of settings.

``python -m microvm_alerts`` (`make alerts`) writes ``alerts/microvm.rules.yml``. What a user may
want otherwise, such as the name of the scrape job, is in `microvm_alerts.settings` and nowhere
else.
"""

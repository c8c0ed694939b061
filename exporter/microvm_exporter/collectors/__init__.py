"""The collectors: each looks at one source and gives records of `microvm_exporter.model`.

A collector raises `CollectorError` when its source could not be read, and counts in ``left_out``
the single objects that it had to pass over.
"""

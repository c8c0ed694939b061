"""``python -m microvm_exporter``."""

from __future__ import annotations

from microvm_exporter.main import main

if __name__ == "__main__":
    main()

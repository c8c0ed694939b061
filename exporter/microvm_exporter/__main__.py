"""``python -m microvm_exporter``."""

from __future__ import annotations

import sys

from microvm_exporter.main import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m microvm_dashboards``: write the dashboards' files."""

from __future__ import annotations

from microvm_dashboards.files import FOLDER, files

for name, text in files().items():
    (FOLDER / name).write_text(text)
    print(FOLDER / name)

"""The runbooks as they are written, for the tests: a page's sections, and the code in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RUNBOOKS: Final = Path(__file__).parents[1] / "docs" / "runbooks"

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """A page as text, and by section."""

    name: str
    text: str

    @classmethod
    def read(cls, name: str) -> Page:
        return cls(name, (RUNBOOKS / f"{name}.md").read_text())

    def section(self, heading: str) -> str:
        return self.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]

    def blocks(self, language: str, heading: str = "") -> list[str]:
        text = self.section(heading) if heading else self.text
        return [block for found, block in _FENCE.findall(text) if found == language]

    def anchors(self) -> set[str]:
        """The names that GitHub gives the headings, for links to them."""
        headings = re.findall(r"^#+ (.*)$", self.text, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

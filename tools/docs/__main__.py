"""`python -m tools.docs [PAGE ...]`: write the generated pages of docs/, all of them or those named."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from tools.docs.idea_picture import scene
from tools.docs.models_page import models_page, page_row
from tools.docs.network_page import network_page
from tools.docs.recipe_page import reference_page
from tools.docs.sets_table import sets_table
from tools.docs.sources_table import sources_table

DOCS = Path(__file__).parents[2] / "docs"


def data_page() -> str:
    """Return docs/data.md with its tables made anew; the words around them are written by hand."""
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    for table in (sets_table(), sources_table()):
        head = re.escape(table.partition("\n")[0])
        page = re.sub(rf"{head}\n(\|.*\n)+", lambda _, made=table: made, page)
    return page


PAGES: dict[str, Callable[[], str]] = {
    "data.md": data_page,
    "idea.svg": scene,
    "models.md": lambda: models_page(page_row),
    "network.md": network_page,
    "recipe.md": reference_page,
}


def main() -> None:
    """Write the pages."""
    for name in sys.argv[1:] or PAGES:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()

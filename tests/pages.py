"""The pages of the documentation with the tables of `other_libraries`: run this to write them."""

from pathlib import Path

from chainax.core.values.other_libraries import OTHER_LIBRARIES

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"from_optax.md": "optax", "from_pytorch.md": "torch"}
"""The library that each page is about."""


def page(file: str) -> str:
    """What a page should be: its text up to the first of the tables as it is, then a section for each module."""
    modules = [module for module in OTHER_LIBRARIES if module.partition(".")[0] == PAGES[file]]
    head = (DOCS / file).read_text(encoding="utf-8").partition(f"\n## {modules[0]}\n")[0]
    sections = [table(module) for module in modules]
    return "\n".join([head.rstrip("\n") + "\n", *sections])


def table(module: str) -> str:
    """The section of a module."""
    rows = "".join(
        f"| {', '.join(f'`{name}`' for name in names.split())} | {here} |\n"
        for names, text in OTHER_LIBRARIES[module].items()
        for here in (text.replace("|", r"\|"),)
    )
    return f"## {module}\n\n| there | here |\n|---|---|\n{rows}"


if __name__ == "__main__":
    for file in PAGES:
        (DOCS / file).write_text(page(file), encoding="utf-8")

"""What MkDocs calls: adds the pages that are made, links names, and checks that none is missing."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import chainax as cx
import chainax.extend as cxe
from contents import AUTHORS, FAMILIES, FUNCTIONS
from families import modules, pages, where
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
TABLES = (
    "benchmarks/README.md",
    "benchmarks/results/amd-epyc-2-cores.md",
    "benchmarks/compiled/devices.md",
    "benchmarks/compiled/matrices.md",
    "benchmarks/compiled/meshes.md",
)
"""Pages that lie elsewhere in the repository, and at the same place in the site."""


def on_config(config: Any) -> Any:
    """Adds the pages that are made to the navigation, and the path of the generator for griffe."""
    config.nav[-1:-1] = [
        {"Optimizers and links": [{page.title: f"links/{page.file}.md"} for page in FAMILIES]},
        {
            "Functions": [{page.title: f"api/{page.file}.md"} for page in (*FUNCTIONS, AUTHORS)]
            + [{f"chainax.{name}": f"api/{name}.md"} for name in modules()]
        },
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made: those of the library, the front page, and the measured tables."""
    made = pages() | {"index.md": front_page((ROOT / "README.md").read_text(encoding="utf-8"))}
    made |= {path: (ROOT / path).read_text(encoding="utf-8") for path in TABLES}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Leads links from ``docs`` to the measured tables to where they are in the site."""
    return markdown if "/" in page.file.src_uri else markdown.replace("](../benchmarks/", "](benchmarks/")


def on_page_content(html: str, page: Any, **kwargs: Any) -> str:
    """Links every public name in the text to its section."""
    up = "../" * page.url.count("/")
    places = {name: f"{up}{folder}/{made.file}/#{_module(name)}.{name}" for name, (made, folder) in where().items()}

    def link(match: re.Match[str]) -> str:
        whole, name = match[0], match[1].removeprefix("cx.").removeprefix("cxe.")
        return f'<a class="name" href="{places[name]}">{whole}</a>' if name in places else whole

    parts = re.split(r"(<h\d.*?</h\d>|<a .*?</a>|<pre.*?</pre>)", html, flags=re.S)
    return "".join(part if i % 2 else re.sub(r"<code>([\w.]+)</code>", link, part) for i, part in enumerate(parts))


def on_post_build(config: Any) -> None:
    """Every public name has a section on the page that links lead to, or the build fails."""
    missing = []
    for name, (made, folder) in where().items():
        html = (Path(config.site_dir) / folder / made.file / "index.html").read_text(encoding="utf-8")
        if f'id="{_module(name)}.{name}"' not in html:
            missing.append(name)
    if missing:
        raise PluginError(f"without a section on the pages of the site: {', '.join(missing)}")


def front_page(readme: str) -> str:
    """The README as the first page of the site: its links are relative to the repository."""
    text = re.sub(r"\]\(docs/", "](", readme)
    return re.sub(r"\[([^\]]*)\]\((?:examples/|tests/|CONTRIBUTING|CHANGELOG|LICENSE)[^)]*\)", r"\1", text)


def _module(name: str) -> str:
    return "chainax.extend" if name in cxe.__all__ and name not in cx.__all__ else "chainax"

"""The packages in src/, and the metadata that depends on where the library is published.

setuptools cannot look for packages under another name than their folder's, so they are found here. In a public
repository's workflow, which knows its address, the package gets project URLs, and the links and pictures of the README
become absolute, so that they work on an index too. Elsewhere they stay relative.
"""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "src" / "__init__.py").read_text(encoding="utf-8"))[1]


def published_readme(text: str, repository: str) -> str:
    """The README with absolute links to the files of a release: pictures to their bytes, all others to their page."""

    def absolute(match: re.Match) -> str:
        kind = "raw" if match["picture"] else "blob"
        return f"{match['picture']}[{match['text']}]({repository}/{kind}/v{VERSION}/{match['target']})"

    link = re.compile(r"(?P<picture>!?)\[(?P<text>[^]]*)\]\((?!https?:|#)(?P<target>[^)]+)\)")
    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)  # code blocks have no links
    return "".join(link.sub(absolute, part) if i % 2 == 0 else part for i, part in enumerate(parts))


readme = (ROOT / "README.md").read_text(encoding="utf-8")
urls = {}
if "GITHUB_REPOSITORY" in os.environ:
    address = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{os.environ['GITHUB_REPOSITORY']}"
    readme = published_readme(readme, address)
    urls = {
        "Source": address,
        "Documentation": f"{address}/tree/v{VERSION}/docs",
        "Changelog": f"{address}/blob/v{VERSION}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }

setup(
    packages=["chainax", *(f"chainax.{name}" for name in find_packages("src"))],
    long_description=readme,
    long_description_content_type="text/markdown",
    project_urls=urls,
)

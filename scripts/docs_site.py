"""Hooks of `mkdocs build`: what the site holds besides docs/, and links between files of the repository.

Pages link to one another by their paths in the repository, so that the links work in a checkout as well. Here they
become links between pages of the site.
"""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "RELEASING.md": "project/releasing.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "tests/README.md": "project/tests.md",
    "schemas": "reference/schemas.md",
    "docs/rules": "rules/README.md",
}
"""Pages of the site, by their path in the repository, where they are not that of a file in docs/."""
MERMAID = ROOT / ".venv" / "mermaid.min.js"
"""Written by `make docs`. Without it, browsers load Mermaid from the network."""
MERMAID_URI = "assets/mermaid.min.js"
FAMILIES = {
    "CK0": "Files",
    "CK1": "Rows",
    "CK2": "Images",
    "CK3": "Whole datasets",
    "CK4": "Models",
}
_CODE = re.compile(r"`[^`\n]*`")
_INLINE_CODE = re.compile(r"(?<!</span>)<code>[^<]*</code>")
_OPTION = re.compile(r"--\w[\w-]*")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_config(config: Any) -> Any:
    """Add the pages of the rules to the navigation, by family."""
    names = [path.name for path in sorted((ROOT / "docs" / "rules").glob("CK*.md"))]
    families = [
        {title: [f"rules/{name}" for name in names if name.startswith(prefix)]} for prefix, title in FAMILIES.items()
    ]
    for section in config.nav:
        for pages in section.values():
            for page in pages if isinstance(pages, list) else ():
                if isinstance(page, dict) and page.get("Rules") == "rules/README.md":
                    page["Rules"] = ["rules/README.md", *families]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add pages and schemas from outside docs/, and the Mermaid script."""
    for source, uri in _outside().items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    if MERMAID.is_file():
        files.append(File.generated(config, MERMAID_URI, abs_src_path=str(MERMAID)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links to files of the repository into links to pages of the site.

    In code of tables, GitHub needs `\\|` where the site needs `|`.
    """
    markdown = re.sub(
        r"^\|.*", lambda row: _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), markdown, flags=re.M
    )
    uri = page.file.src_uri
    source = next((path for path, there in _outside().items() if there == uri), f"docs/{uri}")
    return _LINK.sub(lambda link: _relative(link[1], source, uri) + (link[2] or ""), markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Keep options such as --max_errors on one line: browsers break lines after hyphens."""
    return _INLINE_CODE.sub(lambda code: _OPTION.sub(r'<span class="option">\g<0></span>', code[0]), html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Load the local Mermaid script where a page has a figure."""
    if 'class="mermaid"' not in output or not MERMAID.is_file():
        return output
    script = posixpath.relpath(MERMAID_URI, posixpath.dirname(page.url) or ".")
    return output.replace("<script", f'<script src="{script}"></script><script', 1)


def _outside() -> dict[str, str]:
    """Return the files of the site that are not in docs/, with their place in the site."""
    pages = {source: uri for source, uri in PAGES.items() if uri.startswith("project/")}
    return pages | {path: path for path in _paths((ROOT / "schemas").glob("*.json"))} | {"LICENSE": "LICENSE"}


def _paths(files: Iterable[Path]) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in files)


def _relative(link: str, source: str, uri: str) -> str:
    """Return a link of a file of the repository as a link of its page in the site."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    there = PAGES.get(target) or _outside().get(target) or target.removeprefix("docs/")
    if there == target and not target.startswith("schemas/"):
        return link  # unknown: mkdocs reports it
    return posixpath.relpath(there, posixpath.dirname(uri) or ".")

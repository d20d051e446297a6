"""The documentation site: these documents as they are, and the library's reference from its docstrings (`make docs`).

The documents stay plain Markdown that a repository's pages show; what only the site needs is added here.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
# The order of the navigation. The tutorial is the first page; a document that is in no section fails the build.
SECTIONS = {
    "Use it": ["api", "client", "cli", "page", "gateway"],
    "Train": ["training", "evaluation", "model-tools", "model_card"],
    "Run it": ["operations", "releases", "platforms", "kubernetes", "monitoring", "runbook"],
    "Know it": ["architecture", "reference/visionserve/index", "LOG"],
}

# The modules that a program of the reader's may use; the rest of the library is read in its source.
REFERENCE = (
    *(
        "__init__",
        "classifier",
        "engines",
        "errors",
        "heatmap",
        "images",
        "model_card",
        "novelty",
        "responses",
        "transforms",
    ),
    *(f"client/{name}" for name in ("__init__", "async_client", "client", "errors", "grpc", "results", "retry")),
)

project = "visionserve"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension"]
root_doc = "tutorial"
exclude_patterns = ["notebooks", "README.md"]
default_role = "literal"
highlight_language = "none"
smartquotes = False
suppress_warnings = [
    "misc.highlighting_failure",  # an example of JSON is shortened by an ellipsis
    "autoapi.python_import_resolution",  # modules that the reference leaves out
]

# Links to headings are those that a repository's pages make.
myst_heading_anchors = 4

# The reference is read from the source: nothing is imported, so nothing else has to be installed.
autoapi_dirs = [str(ROOT / "visionserve")]
autoapi_ignore = sorted(
    str(path)
    for path in (ROOT / "visionserve").rglob("*.py")
    if path.relative_to(ROOT / "visionserve").with_suffix("").as_posix() not in REFERENCE
)
autoapi_root = "reference"
autoapi_add_toctree_entry = False
autoapi_keep_files = False
autoapi_options = ["members", "show-module-summary"]
autoapi_python_class_content = "both"
autoapi_member_order = "bysource"

html_theme = "furo"
html_title = f"visionserve {release}"
html_show_sphinx = False
html_copy_source = False


def add_navigation(_app: Sphinx, document: str, source: list[str]) -> None:
    """Append the navigation to the first page; it shows in the sidebar only."""
    if document == root_doc:
        for caption, documents in SECTIONS.items():
            entries = "\n".join(documents)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def keep_layout(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Show what a docstring has drawn or indented as it stands in the source, not as a paragraph."""
    first, *paragraphs = "\n".join(lines).strip("\n").split("\n\n")
    kept, in_section = [first], False
    for paragraph in paragraphs:
        rows = paragraph.split("\n")
        if not rows[0].startswith(" "):
            in_section = re.fullmatch(r"[A-Z][a-z]+:", rows[0]) is not None
        drawn = any(row.startswith(" ") for row in rows) or (what in ("module", "package") and " -> " in paragraph)
        kept.append("::\n\n" + "\n".join(f"    {row}" for row in rows) if drawn and not in_section else paragraph)
    lines[:] = [*"\n\n".join(kept).split("\n"), ""]


def copy_first_page(app: Sphinx, error: Exception | None) -> None:
    """Make the first page the site's address as well."""
    if error is None and app.builder.format == "html":
        out = Path(app.outdir)
        (out / "index.html").write_bytes((out / f"{root_doc}.html").read_bytes())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the functions."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", keep_layout, priority=400)  # before napoleon reads the sections
    app.connect("build-finished", copy_first_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

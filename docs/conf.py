"""How the documentation is built; `make docs` turns every warning into an error."""

from __future__ import annotations

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads(
    (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
)["project"]

project = "sentra_kms"
author = "The sentra_kms authors"
copyright = author
version = release = _PROJECT["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
# Names of ours must resolve; those of other packages have no pages here, nor have private bases.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(click|collections|contextlib|cryptography|datetime|logging|msgspec)\..*"),
    (r"py:.*", r"(os|pathlib|pluggy|pydantic_settings|rich|sqlalchemy|types|typing)\..*"),
    (r"py:.*", r"(.*\.)?_[A-Za-z]\w*"),
]
# In docstrings `name` is a piece of code, as in Markdown.
default_role = "code"

html_theme = "furo"
html_title = f"sentra_kms {release}"
html_copy_source = False

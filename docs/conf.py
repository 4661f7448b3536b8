"""The documentation site: `sphinx-build -W docs site`, with the `docs` extra."""

from __future__ import annotations

import honcho_exec

project = "honcho_exec"
author = "the authors of honcho_exec"
version = release = honcho_exec.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples", "tools"]
myst_enable_extensions = ["attrs_block"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
html_theme = "furo"
html_title = f"honcho_exec {release}"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1a6b4d", "color-brand-content": "#1a6b4d"},
    "dark_css_variables": {"color-brand-primary": "#5fd3a6", "color-brand-content": "#5fd3a6"},
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

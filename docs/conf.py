"""The site: sphinx-build -W docs site (with the `docs` extra)."""

from __future__ import annotations

import honcho_exec

project = "honcho_exec"
author = "the authors of honcho_exec"
version = release = honcho_exec.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
source_suffix = {".md": "markdown"}
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
html_theme = "alabaster"
html_theme_options = {"description": "Honcho memory: durable, exactly once, never in the way", "fixed_sidebar": True}
html_copy_source = False

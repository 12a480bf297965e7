"""Sphinx's configuration of the documentation site; ``build.py`` hands it the folder of pages that it has set up."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jiio

project = "jiio"
author = "The jiio authors"
version = release = jiio.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "telling", "mathml"]
root_doc = "index"
exclude_patterns = ["gallery/*", "tutorials/*"]

# The pages are GitHub's Markdown: dollars are mathematics, headings have anchors, fences may be mathematics.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 6
myst_fence_as_directive = ["math"]

# The reference is read from the modules themselves, because the doors of jiio load every name when it is first used.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # torch's own words about forward() are not ours
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

html_theme = "pydata_sphinx_theme"
html_title = f"jiio {release}"
html_show_sourcelink = False
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["jiio.css"]
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}
copyright = "the jiio authors, MIT licence"
pygments_style = "default"

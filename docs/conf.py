"""The configuration of Sphinx, which builds this documentation: `sphinx-build -W docs build/docs`."""

project = "pfsb"
author = "The pfsb developers"

root_doc = "index"
exclude_patterns = ["_build"]

html_theme = "alabaster"
html_theme_options = {"description": "A replicated state machine server", "page_width": "75em"}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_js_files = ["tables.js"]
# Most examples are typed at a terminal: coloured as Python, their words would stand out at random.
highlight_language = "none"

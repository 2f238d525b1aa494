"""The configuration of Sphinx, which builds this documentation: `sphinx-build -W docs build/docs`."""

project = "pfsb"
author = "The pfsb developers"

root_doc = "index"
exclude_patterns = ["_build"]

html_theme = "alabaster"
html_theme_options = {"description": "A replicated state machine server", "page_width": "70em"}

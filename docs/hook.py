"""What MkDocs calls: it adds pages that are made from the code, and refuses a site that loads from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from headwise_site import (
    command_page,
    law_page,
    notebooks,
    outside,
    paper_page,
    python_page,
    strategy_pages,
    sweep_page,
)
from headwise_site.error_table import errors_table

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

MODULES = (law_page, notebooks, paper_page, python_page, strategy_pages, sweep_page)

MADE = {"commands": command_page.commands, "errors": errors_table}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of strategies into the place that mkdocs.yml leaves for them."""
    for section in config.nav:
        for entry in section.get("Reference", []):
            if isinstance(entry, dict) and "Strategies" in entry:
                entry["Strategies"] = strategy_pages.navigation()
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is made from the code: path -> text or bytes."""
    for module in MODULES:
        for path, content in module.pages().items():
            files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """What pages ask for with a mark is put there; diagrams that need a script from elsewhere are not."""
    for mark, made in MADE.items():
        if f"<!-- made: {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- made: {mark} -->", made())
    return outside.without_diagrams(markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Ends the build where a page or style sheet would load anything from another host."""
    found = outside.loads(config.site_dir)
    if found:
        raise PluginError(f"the site loads from elsewhere: {', '.join(found)}")

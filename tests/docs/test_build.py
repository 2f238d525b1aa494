"""The pages of docs/ can be built: no table, reference or heading of them is broken, and they fit every window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import pfsb
from tests.long import long

DOCS = Path(pfsb.__file__).parents[1] / "docs"
WIDTHS = (360, 800, 1280)
"""Widths of windows, in pixels: of a telephone, of half a screen and of a small screen."""

MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const found = [];
async function measure(page, width) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 600px; border: 0`;
  const loaded = new Promise(done => frame.onload = done);
  frame.src = page;
  document.body.append(frame);
  await loaded;
  const root = frame.contentDocument.documentElement;
  const wide = [...frame.contentDocument.querySelectorAll("body *")]
    .filter(each => each.getBoundingClientRect().right > width + 1 || each.scrollWidth > each.clientWidth + 1
                    && getComputedStyle(each).overflowX !== "visible" && each.clientWidth > 0)
    .map(each => each.tagName + "." + each.className + ": " + each.textContent.trim().slice(0, 60));
  found.push([page, width, root.scrollWidth, wide.slice(0, 3)]);
  frame.remove();
}
(async () => {
  for (const page of PAGES) for (const width of WIDTHS) await measure(page, width);
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script></body>
"""
"""A page of HTML that shows each page of the documentation in frames of the widths in `WIDTHS`, and tells what is wider
than its frame."""


@long
class BuildTests(SynchronousTestCase):
    def build(self) -> Path:
        """Build the pages as `make docs` does, which readers and packagers run; warnings are errors."""
        out = Path(self.mktemp()).absolute()
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(out)]
        built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual((built.returncode, built.stderr), (0, ""))
        return out

    def test_pages_are_built_without_a_warning_and_scroll_in_one_direction(self) -> None:
        """All pages are built without a warning, and no page, and no part of one, is wider than its window."""
        out = self.build()
        browser = shutil.which("chromium") or shutil.which("chromium-browser")
        if browser is None:
            raise SkipTest("there is no chromium here to measure the pages with; they were built without a warning")
        for page, width, needed, wide in measured(browser, out):
            self.assertLessEqual((needed, wide), (width, []), f"{page} at {width} pixels")


def measured(browser: str, pages: Path) -> list[tuple[str, int, int, list[str]]]:
    """(page, width of the window, width that the page needs, some parts that do not fit) for each page and width."""
    names = sorted(str(path.relative_to(pages)) for path in pages.rglob("*.html") if path.parent.name != "_static")
    text = MEASURE.replace("PAGES", json.dumps(names)).replace("WIDTHS", json.dumps(WIDTHS))
    (pages / "measure.html").write_text(text, encoding="utf-8")
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
        *(f"--user-data-dir={pages / 'profile'}", "--virtual-time-budget=600000", "--window-size=1400,900"),
        *("--dump-dom", (pages / "measure.html").as_uri()),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    found = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert found is not None, shown[-2_000:]
    rows: list[tuple[str, int, int, list[str]]] = json.loads(unescape(found[1]))
    assert len(rows) == len(names) * len(WIDTHS)
    return rows

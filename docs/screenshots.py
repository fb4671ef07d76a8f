"""Pictures of a report as people see it: on a desktop, on a phone, on paper.

    python docs/screenshots.py runs/demo/report/report.html --out docs/images

Opens the page in Chromium without a network and writes desktop.png, dark.png, phone.png,
print.png and print.pdf; `--top --views desktop --section "One sample"` makes the README's. Exits 1
if the page writes an error or a warning to the console, asks for anything outside itself, or is
wider than its window. The browser is the one that `NEUROAV_BROWSER` names, else the first of
chromium, chromium-browser and google-chrome on the path, else one that `playwright install
chromium` fetched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no Chromium: install Debian's chromium, or run `playwright install chromium`"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--no-first-run"]  # fmt: skip
# name -> width, height in CSS pixels, pixels per CSS pixel, medium, colour scheme
VIEWS = {
    "desktop": (1280, 900, 1, "screen", "light"),
    "dark": (1280, 900, 1, "screen", "dark"),
    "phone": (390, 844, 2, "screen", "light"),
    "print": (794, 1123, 1, "print", "light"),  # A4 at 96 dpi
}


def browser_path() -> str | None:
    """Return the browser to use, None if there is none."""
    if named := os.environ.get("NEUROAV_BROWSER"):
        return named
    if found := next((found for name in BROWSERS if (found := shutil.which(name))), None):
        return found
    with sync_playwright() as play:
        own = play.chromium.executable_path
    return own if Path(own).exists() else None


def shoot(browser: Browser, page_file: Path, out: Path, name: str, *, top: bool) -> list[str]:
    """Write NAME.png, for print also NAME.pdf; return what is wrong with the page in this view.

    top: only what the window shows first.
    """
    width, height, scale, medium, scheme = VIEWS[name]
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale, offline=True
    )
    wrong: list[str] = []
    page = context.new_page()
    page.emulate_media(media=medium, color_scheme=scheme)  # type: ignore[arg-type]
    page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    address = page_file.resolve().as_uri()

    def only_the_page(route) -> None:
        if route.request.url.split("#")[0] == address:
            route.continue_()
        else:
            wrong.append(f"asks for {route.request.url[:200]}")
            route.abort()

    context.route("**/*", only_the_page)
    page.goto(address)
    found = page.evaluate("document.documentElement.scrollWidth")
    if found > width:
        wrong.append(f"is {found} pixels wide in a window of {width}")
    page.screenshot(path=out / f"{name}.png", full_page=not top)
    if medium == "print":
        page.pdf(path=out / f"{name}.pdf", format="A4", print_background=True)
    context.close()
    return [f"{name}: {text}" for text in wrong]


def shoot_section(browser: Browser, page_file: Path, out: Path, heading: str) -> None:
    """Write section.png: the section of the page under this heading, as on a desktop."""
    width, height, scale, _, scheme = VIEWS["desktop"]
    page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(page_file.resolve().as_uri())
    section = page.locator("section", has=page.get_by_role("heading", name=heading)).first
    section.screenshot(path=out / "section.png")
    page.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", help="report.html")
    parser.add_argument("--out", type=Path, default=Path("screenshots"))
    parser.add_argument("--find", action="store_true", help="only say which browser there is")
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=VIEWS)
    parser.add_argument("--top", action="store_true", help="only the first window's height")
    parser.add_argument("--section", help="also picture the section with this heading")
    args = parser.parse_args()
    browser_file = browser_path()
    if browser_file is None or args.find:
        print(browser_file or MISSING, file=sys.stdout if browser_file else sys.stderr)
        return 0 if browser_file else 2
    if args.page is None or not args.page.is_file():
        parser.error(f"{args.page}: no such file")
    args.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_file, args=QUIET)
        wrong = [
            text
            for name in args.views
            for text in shoot(browser, args.page, args.out, name, top=args.top)
        ]
        if args.section:
            shoot_section(browser, args.page, args.out, args.section)
        browser.close()
    print("\n".join(wrong or [f"{args.out}: {', '.join(args.views)}"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

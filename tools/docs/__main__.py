"""`python -m tools.docs`: write the generated parts of the pages in `doc/`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.docs.pages import PAGES

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write every page that is not up to date, or only name it.

    Returns:
        0 when all pages are up to date at the end; 1 with `--check` when one is not.
    """
    parser = argparse.ArgumentParser(
        prog='python -m tools.docs',
        description='Write the generated parts of the pages in doc/.',
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; exit with 1 if a page is stale'
    )
    check_only = parser.parse_args().check
    stale = []
    for page in PAGES:
        path = ROOT / page.path
        text = page.render(ROOT)
        if path.read_text(encoding='utf-8') == text:
            continue
        stale.append(page.path)
        if not check_only:
            path.write_text(text, encoding='utf-8')
    for name in stale:
        print(f'{name}: {"stale, run `make docs`" if check_only else "written"}')
    return 1 if stale and check_only else 0


if __name__ == '__main__':
    sys.exit(main())

"""Chromium for the tests of the page: found, or installed where that is nobody's loss."""

from __future__ import annotations

import os
import shutil

from console import SetupError, run_logged, say

NAMES = ('chromium', 'google-chrome')
"""On the PATH; Ubuntu's chromium-browser is a stand-in that asks for a snap."""
PACKAGES = ('chromium', 'fonts-dejavu-core')
INSTALL = ('apt-get', 'install', '--yes', '--no-install-recommends', *PACKAGES)


def find() -> str | None:
    """Return where the browser is; None = there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def can_install() -> bool:
    """Return whether it can be installed without asking anybody: as root, on a Debian."""
    return os.geteuid() == 0 and shutil.which('apt-get') is not None


def provide() -> None:
    """Install it where that can be done; else say how, and go on."""
    if find():
        return
    if not can_install():
        say(f'      `browser` tests are skipped; for them: sudo {" ".join(INSTALL)}')
        return
    env = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    try:
        run_logged(['apt-get', 'update'], env=env)
        run_logged(list(INSTALL), env=env)
    except SetupError as error:
        say(f'      `browser` tests are skipped: {error}')

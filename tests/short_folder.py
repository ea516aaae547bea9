"""A temporary folder with a short path: the sockets that PyTorch makes in it may have 107 bytes of a name, no more."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path


def short_folder(link: Path) -> str:
    """A new folder, also to be found at ``link``; it goes when the tests end."""
    folder = tempfile.mkdtemp(prefix="c75-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link.symlink_to(folder, target_is_directory=True)
    return folder

"""Which disks are this machine's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_OWN = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def is_own_disk(folder: Path) -> bool:
    """Whether files in a folder stay readable through a mapping after anybody has removed them.

    On a disk of this machine they do. On NFS and the like another machine's removal takes the bytes away, and the
    process that reads them dies of SIGBUS. False where it cannot be told: on other systems than Linux, and on
    filesystems that are not known to be a machine's own.

    Examples
    --------
    >>> is_own_disk(Path("/proc"))
    False
    """
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
        path = os.path.realpath(folder)
    except OSError:
        return False
    found, kind = "", ""
    for line in lines:
        _, point, its_kind, *_ = line.split(" ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), point)
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(found):  # of two at one place the later hides the earlier
            found, kind = point, its_kind
    return kind in _OWN

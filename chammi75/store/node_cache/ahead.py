"""Fetching files before they are needed, in a thread of the process that will need them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from chammi75.errors import ChammiError
from chammi75.store.node_cache.download import RemoteFile
from chammi75.store.node_cache.open_files import NOTED_EVERY_S


class Ahead:
    """The files that a process is going to need, and the thread that fetches them.

    Parameters
    ----------
    obtain : callable
        Fetches a file unless it is there; True when it is, False if it must be tried again later.
    tick : callable
        Called about once a minute.
    limit_bytes : int
        Files beyond it are left for later.
    """

    def __init__(self, obtain: Callable[[RemoteFile], bool], tick: Callable[[], None], limit_bytes: int) -> None:
        self._obtain = obtain
        self._tick = tick
        self._limit_bytes = limit_bytes
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._plan: Sequence[RemoteFile] = ()
        self._ranks: Mapping[str, int] = {}
        self._is_stopped = False
        self.parts: set[Path] = set()
        """What the thread is writing."""

    @property
    def ranks(self) -> Mapping[str, int]:
        """The planned files by SHA-256, with their places in the plan."""
        return self._ranks

    def is_unwanted(self, file: RemoteFile) -> bool:
        """Whether a file is in no plan any more."""
        return self._is_stopped or file.sha256 not in self._ranks

    def start(self, files: Iterable[RemoteFile]) -> None:
        """Fetch these files from now on, in their order, and no others."""
        plan, size = [], 0
        for file in {file.sha256: file for file in files}.values():
            size += file.size
            if size > self._limit_bytes:
                break
            plan.append(file)
        with self._wake:
            self._is_stopped = False
            self._plan = plan
            self._ranks = {file.sha256: number for number, file in enumerate(plan)}
            self._wake.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="chammi75-prefetch", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Fetch nothing more, and remove what is half fetched: at the interpreter's end the thread cannot."""
        with self._wake:
            self._is_stopped = True
            self._plan, self._ranks = (), {}
            self._wake.notify_all()
        for part in list(self.parts):
            part.unlink(missing_ok=True)

    def _run(self) -> None:
        plan: Sequence[RemoteFile] = ()
        waiting: list[RemoteFile] = []
        while True:
            with self._wake:
                if self._is_stopped:
                    self._thread = None
                    return
                if self._plan is plan:
                    self._wake.wait(0.2 if waiting else NOTED_EVERY_S)
                if self._plan is not plan:
                    plan, waiting = self._plan, list(self._plan)
            self._tick()
            for file in waiting[:]:
                if self._is_stopped or self._plan is not plan:
                    break
                if self._is_settled(file):
                    waiting.remove(file)

    def _is_settled(self, file: RemoteFile) -> bool:
        try:
            return self._obtain(file)
        except (ChammiError, OSError):  # whoever needs the file asks for it again, and is told
            return True

"""Pixels of batches in memory that workers lend to the process that trains, and get back when it has dropped them.

PyTorch makes a shared memory file for every tensor that a worker sends: both processes map fresh pages for it, and a
socket passes each one on. For batches of pixels this can cost as much as decoding them. Here a worker keeps one file
without a name, and cuts slots out of it. The process that trains maps a slot once, builds tensors on it, and gives it
back as soon as the last of them is gone; the worker then fills the same pages again. Small tensors travel as values.

Nothing has to be closed: the file is in no folder, so it goes with the processes. Lending begins once the receiving
process has said that it could open the file; the first batches, until then, travel as values. Where it cannot, beyond
``SLOTS`` batches that it holds on to, and on systems without such files, PyTorch moves the tensors.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
import threading
import weakref
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import get_temp_dir
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    import torch

SLOTS = 24
"""Batches of one worker that may be under way, or in use, at a time."""

_STRIDE = 1 << 36
"""Bytes between slots; what is not written takes no memory."""

_HEADER = 4096
_TOKEN = 16
_ACCEPTED, _STATES = 32, 64
"""Where the header says that lending may begin, and which slots are lent."""

_SMALL = 1 << 16
"""Bytes up to which a tensor travels as a value."""

_FIRST = 8
"""Batches that travel as values, whatever their size, while it is open whether the memory will be accepted."""

_LONGEST_SOCKET = 107
"""Characters that the path of a socket may have on Linux (108 bytes with the end), and what follows its folder."""
_SOCKET_NAME = len("/listener-xxxxxxxx")


class WorkerBatch(dict[str, Any]):
    """A batch in a worker; where a queue brings it, it is an ordinary dict with the same entries."""


class Lender:
    """The memory that this worker lends.

    Raises
    ------
    OSError, AttributeError
        If the system has no files without names.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("chammi75-batches", os.MFD_CLOEXEC)
        os.ftruncate(self._file, _STRIDE * (SLOTS + 1))
        self._header = mmap.mmap(self._file, _HEADER)
        self._token = secrets.token_bytes(_TOKEN)
        self._header[:_TOKEN] = self._token
        self._maps: dict[int, mmap.mmap] = {}
        self._held: set[int] = set()
        self._slots: dict[int, tuple[int, weakref.finalize[Any, Any]]] = {}
        self._lock = threading.Lock()
        self._offered = 0

    def is_undecided(self) -> bool:
        """Whether the other process may still accept; asked once for each batch."""
        self._offered += 1
        return not self.is_accepted and self._offered <= _FIRST

    @property
    def is_accepted(self) -> bool:
        """Whether the process that trains has opened the memory."""
        return self._header[_ACCEPTED] == 1

    @property
    def address(self) -> tuple[int, int, bytes]:
        """Where another process finds the memory."""
        return os.getpid(), self._file, self._token

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """An array in a slot that nobody uses; None if there is none. What is in it is undefined."""
        size = int(np.prod(shape)) * dtype.itemsize
        if not 0 < size <= _STRIDE:
            return None
        with self._lock:
            free = (slot for slot in range(SLOTS) if not self._header[_STATES + slot] and slot not in self._held)
            slot = next(free, None)
            if slot is None:
                return None
            self._held.add(slot)
        try:
            if slot not in self._maps or len(self._maps[slot]) < size:
                self._maps[slot] = mmap.mmap(self._file, _pages(size), offset=(slot + 1) * _STRIDE)
        except (OSError, ValueError):
            self._held.discard(slot)
            return None
        array: NDArray[Any] = np.ndarray(shape, dtype, buffer=self._maps[slot])
        address = array.ctypes.data
        done = weakref.finalize(array, self._dropped, slot, address)
        done.atexit = False
        self._slots[address] = slot, done
        return array

    def lend(self, tensor: torch.Tensor) -> tuple[Any, ...] | None:
        """How another process finds a tensor that begins a slot; None if it does not, or the slot is lent already.

        What is given back is given back once, so a second tensor on the same memory travels otherwise.
        """
        found = self._slots.get(tensor.data_ptr())
        if found is None or not tensor.is_contiguous() or not found[1].alive:
            return None
        slot = found[0]
        del self._slots[tensor.data_ptr()]
        self._header[_STATES + slot] = 1
        return *self.address, slot, tuple(tensor.shape), tensor.numpy().dtype.name

    def _dropped(self, slot: int, address: int) -> None:
        self._slots.pop(address, None)
        self._held.discard(slot)


class _Loan:
    """The memory of a worker, as the process that trains sees it."""

    def __init__(self, process: int, file: int, token: bytes) -> None:
        self.process = process
        self._file = os.open(f"/proc/{process}/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._header = mmap.mmap(self._file, _HEADER)
            if self._header[:_TOKEN] != token:
                raise OSError("another file")
        except (OSError, ValueError):
            os.close(self._file)
            raise
        self._owner = os.getpid()
        self._maps: dict[int, mmap.mmap] = {}
        self._used: set[int] = set()
        weakref.finalize(self, os.close, self._file).atexit = False
        self._header[_ACCEPTED] = 1

    @property
    def is_over(self) -> bool:
        """Whether the worker is gone, and nothing of its memory is in use."""
        return not self._used and not _lives(self.process)

    def tensor(self, slot: int, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """The tensor in a slot, which goes back to the worker when the last view of it is gone."""
        import torch

        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        if slot not in self._maps or len(self._maps[slot]) < size:
            self._maps[slot] = mmap.mmap(self._file, _pages(size), offset=(slot + 1) * _STRIDE)
        array: NDArray[Any] = np.ndarray(shape, kind, buffer=self._maps[slot])
        self._used.add(slot)
        weakref.finalize(array, self._give_back, slot).atexit = False
        return torch.from_numpy(array)

    def _give_back(self, slot: int) -> None:
        if os.getpid() != self._owner:  # a forked child drops its copy; the memory is still in use
            return
        self._used.discard(slot)
        self._header[_STATES + slot] = 0
        _forget_the_dead()


_lender: tuple[int, Lender | None] = (0, None)
_loans: dict[bytes, _Loan] = {}


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array for pixels: in a worker, in memory that it can lend. What is in it is undefined."""
    lender = _own_lender()
    lent = lender.empty(shape, np.dtype(dtype)) if lender is not None and lender.is_accepted else None
    return np.empty(shape, dtype) if lent is None else lent


def check_sockets(*, whole_batches: bool) -> None:
    """Check that this worker can send tensors.

    PyTorch passes them on by sockets in the folder for temporary files; where its name is too long for a socket, the
    worker would lose them, and the process that trains would wait for ever.

    Parameters
    ----------
    whole_batches : bool
        Whether it sends batches, which need no sockets where they can be lent.

    Raises
    ------
    ChammiError
        If it cannot.
    """
    from torch.multiprocessing import get_sharing_strategy

    if get_sharing_strategy() != "file_descriptor" or (whole_batches and _own_lender() is not None):
        return
    folder = get_temp_dir()
    if len(os.fsencode(folder)) + _SOCKET_NAME > _LONGEST_SOCKET:
        raise ChammiError(
            f"the folder for temporary files has too long a name for the sockets by which PyTorch's workers send"
            f" tensors ({folder}): set TMPDIR to a shorter one, such as /tmp"
        )


def _own_lender() -> Lender | None:
    """What this process lends from; None where it is no worker, or cannot."""
    global _lender
    from torch.utils.data import get_worker_info

    if get_worker_info() is None:
        return None
    process = os.getpid()
    if _lender[0] != process:
        try:
            _lender = process, Lender()
        except (OSError, AttributeError, ValueError):
            _lender = process, None
    return _lender[1]


def _sent(batch: WorkerBatch) -> tuple[Any, ...]:
    """How a queue brings a batch to another process."""
    import torch

    lender = _own_lender()
    limit = sys.maxsize if lender is not None and lender.is_undecided() else _SMALL
    values: dict[str, Any] = {}
    lent: dict[str, tuple[Any, ...]] = {}
    small: set[str] = set()
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.device.type == "cpu" and not value.requires_grad:
            loan = None if lender is None else lender.lend(value)
            if loan is not None:
                lent[name], value = loan, None
            elif value.nbytes <= limit and value.dtype != torch.bfloat16:
                small.add(name)
                value = value.numpy()
        values[name] = value
    return _received, (values, small, lent, None if lender is None else lender.address)


ForkingPickler.register(WorkerBatch, _sent)


def _received(
    values: dict[str, Any], small: set[str], lent: dict[str, tuple[Any, ...]], lender: tuple[int, int, bytes] | None
) -> dict[str, Any]:
    """The batch that another process sent."""
    import torch

    for name in small:
        values[name] = torch.from_numpy(values[name])
    if lender is not None:
        loan = _opened(*lender)
        for name, (*_, slot, shape, dtype) in lent.items():
            if loan is None:
                raise ChammiError(f"the memory of worker process {lender[0]} cannot be read: it has ended")
            values[name] = loan.tensor(slot, shape, dtype)
    return values


def _opened(process: int, file: int, token: bytes) -> _Loan | None:
    """The memory of a worker; None if it cannot be opened."""
    if token not in _loans:
        _forget_the_dead()
        try:
            _loans[token] = _Loan(process, file, token)
        except (OSError, ValueError):
            return None
    return _loans[token]


def _forget_the_dead() -> None:
    """Let the memory of workers go that have ended."""
    for token, loan in list(_loans.items()):
        if loan.is_over:
            _loans.pop(token, None)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _pages(size: int) -> int:
    return -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY

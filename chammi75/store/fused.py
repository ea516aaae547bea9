"""Kernels that decode a window and resize it while it lies in the processor's cache, in one stretch without the GIL.

They are apart from ``tiles`` because they are compiled for each pair of dtypes, and only for those that are used.
"""

from __future__ import annotations

from chammi75.kernels import kernel
from chammi75.store.resize import resize_window, room_for
from chammi75.store.tiles import COLUMNS, DONE, HEIGHT, KIND, LENGTH, PLACE, PLANE, ROWS, WIDTH, codec_of, decode_window


@kernel
def rooms_needed(jobs, first, end, out_height, out_width):  # type: ignore[no-untyped-def]
    """Bytes of the largest window among some jobs, and float32 numbers of room to resize any of them.

    Planes that do not have the head that they must are left out: no memory is asked for by what is wrong.
    """
    window_bytes, floats = 0, 0
    for n in range(first, end):
        job = jobs[n]
        if codec_of(job[PLANE], job[LENGTH], job[HEIGHT], job[WIDTH], job[KIND]) == 0:
            continue
        rows, columns = job[ROWS], job[COLUMNS]
        window_bytes = max(window_bytes, (rows * columns) << job[KIND])
        floats = max(floats, room_for(rows, columns, out_height, out_width))
    return window_bytes, floats


@kernel
def resize_windows(jobs, first, end, kind, tools, raw, room, window, floats, out):  # type: ignore[no-untyped-def]
    """Decode and resize the windows of those jobs whose planes are of one dtype, and mark those that were.

    Gives the number of those that were not. The rooms are looked at again for each: a plane in a file that somebody
    writes to may have been damaged when they were measured, and be sound now.

    Parameters
    ----------
    jobs, first, end, tools, raw, room
        As of ``tiles.decode_windows``.
    kind : int
        Number of that dtype; other jobs are passed over.
    window : ndarray of that dtype, 1-D
        Room for the largest window.
    floats : ndarray of float32, 1-D
        Room for ``resize_window``.
    out : ndarray, shape (M, H, W), C order
    """
    undone = 0
    for n in range(first, end):
        job = jobs[n]
        if job[KIND] == kind:
            rows, columns = job[ROWS], job[COLUMNS]
            needed = room_for(rows, columns, out.shape[1], out.shape[2])
            fits = rows * columns <= window.size and needed <= floats.size and max(rows, columns) < 2**31
            job[DONE] = fits and decode_window(job, window.ctypes.data, columns << kind, kind, tools, raw, room)
            if job[DONE]:
                resize_window(window[: rows * columns].reshape(rows, columns), out[job[PLACE]], floats)
            else:
                undone += 1
    return undone

"""Windows of many images at once, decoded into one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, ReadError, StoreError
from chammi75.loading.encoded import is_plane_of_store, plane_url, read_encoded
from chammi75.store.plane import STORED_DTYPES

if TYPE_CHECKING:
    from chammi75.loading.image import MultiChannelImage

Pixels = NDArray[Any]


def read_crops(
    images: Sequence[MultiChannelImage],
    windows: NDArray[np.integer[Any]] | Sequence[Sequence[int]],
    *,
    channels: Sequence[int | str] | NDArray[np.integer[Any]] | None = None,
    out: Pixels | None = None,
    size: int | tuple[int, int] | None = None,
    threads: int = 1,
) -> Pixels:
    """Decode a window of each of many images, all of them in one call.

    Of a store only the tiles that the windows touch are read and decoded, without the GIL, straight to where they
    belong. Images of other layouts (PNG files of the published dataset) are decoded whole and cut.

    Parameters
    ----------
    images : sequence of MultiChannelImage
        N images of any layout, local or remote; one may stand there several times.
    windows : array of int, shape (N, 4)
        y, x, height, width of each window, in pixels, inside its image.
    channels : sequence of int or str, or array of int of shape (N, C), optional
        Which channels, of all images alike: numbers, or types that only one channel of an image has; or for each
        image its own numbers. All of them by default.
    out : ndarray, shape (N, C, H, W), uint8, uint16 or float32, optional
        Where to write. Its dtype may be wider than that of an image (uint8 to uint16 to float32). Without ``size`` a
        window may be smaller than (H, W), and an image may have fewer channels than C: the rest is left alone. A new
        array by default.
    size : int or (int, int), optional
        Height and width that each window is resized to, bilinear and antialiased; one number is both.
    threads : int
        How many decode at once: at least 1.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        ``out``, or a new array: of the widest dtype of the images, or float32 if resized. Integers are rounded.

    Raises
    ------
    ChammiError
        If a window is not inside its image, or ``out`` does not fit; without ``out``, if windows or channels differ in
        number or size; if an argument is none of what is said here.
    KeyError, IndexError
        If an image has no such channel.
    StoreError, ReadError
        If a file is missing or damaged: the first that is, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from chammi75 import MultiChannelImage
    >>> pixels = np.arange(2 * 40 * 50, dtype=np.uint16).reshape(2, 40, 50)
    >>> image = MultiChannelImage.from_array(pixels, ["nucleus", "er"])
    >>> crops = read_crops([image, image], [[0, 0, 8, 6], [30, 40, 8, 6]], channels=["er"])
    >>> crops.shape, bool((crops[1, 0] == pixels[1, 30:38, 40:46]).all())
    ((2, 1, 8, 6), True)
    >>> read_crops([image], [[0, 0, 40, 50]], size=16).shape
    (1, 2, 16, 16)
    """
    places = _windows(windows, len(images))
    if not isinstance(threads, int | np.integer) or threads < 1:
        raise ChammiError(f"threads are a whole number of at least 1, not {threads!r}")
    shape = None if size is None else _size(size)
    picks = _picked(images, channels)
    target = _new(images, places, picks, shape) if out is None else out
    _check(target, images, places, picks, shape)
    count, depth, height, width = target.shape
    flat = target.reshape(count * depth, height, width)
    try:
        decode_channels(
            [image for image, pick in zip(images, picks, strict=True) for _ in pick],
            [channel for pick in picks for channel in pick],
            np.repeat(places, [len(pick) for pick in picks], axis=0),
            flat,
            np.array([n * depth + c for n, pick in enumerate(picks) for c in range(len(pick))], np.int64),
            resize=size is not None,
            threads=int(threads),
        )
    finally:  # what could be decoded is there even if something could not
        if not np.may_share_memory(flat, target):  # memory with gaps that no view can flatten
            target[:] = flat.reshape(target.shape)
    return target


def decode_channels(
    images: Sequence[MultiChannelImage],
    channels: Sequence[int],
    windows: NDArray[np.int64],
    out: Pixels,
    places: NDArray[np.int64],
    *,
    resize: bool = False,
    threads: int = 1,
) -> None:
    """Decode a window of one channel of each of ``images``: window k goes to ``out[places[k]]``.

    Parameters
    ----------
    images, channels
        K images and the number of a channel of each; the same image may stand there several times.
    windows : ndarray of int64, shape (K, 4)
        y, x, height, width, inside the image.
    out : ndarray, shape (P, H, W)
    places : ndarray of int64, shape (K,)
    resize, threads
        As of ``read_crops``.

    Raises
    ------
    StoreError, ReadError
        As ``read_crops``.
    """
    from chammi75.store.decode import decode_crops

    contents = read_encoded(images, channels, [tuple(window) for window in windows.tolist()])
    ours = [is_plane_of_store(image, content) for image, content in zip(images, contents, strict=True)]
    own = np.flatnonzero(ours).tolist()
    failures = decode_crops(
        [contents[k] for k in own],
        windows[own],
        out,
        shapes=np.array([images[k].shape[1:] for k in own], np.int64),
        dtypes=[images[k].dtype for k in own],
        places=places[own],
        resize="bilinear" if resize else None,
        threads=threads,
    )
    for number, error in failures.items():
        k = own[number]
        more = f" ({len(failures) - 1} other planes are damaged too)" if len(failures) > 1 else ""
        where = images[k]["uri"] or "in memory"
        raise StoreError(f"{where}: {_name(images[k], channels[k])}: {error}{more}") from error

    def decode_file(k: int) -> None:
        _decode_file(images[k], channels[k], contents[k], windows[k].tolist(), out[places[k]], resize)

    others = np.flatnonzero(~np.array(ours, bool)).tolist()
    if threads <= 1 or len(others) < 2:
        for k in others:
            decode_file(k)
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(decode_file, others):
                pass


def _decode_file(
    image: MultiChannelImage, channel: int, content: Any, window: list[int], target: Pixels, resize: bool
) -> None:
    """Decode a plane that is an image file of another kind, whole, and cut the window out of it."""
    from chammi75.readers.registry import open_image

    url = plane_url(image, channel)
    with open_image(url, content=bytes(content)) as reader:
        plane = reader.read_plane()
    _, height, width = image.shape
    if plane.shape != (height, width) or plane.dtype != image.dtype:
        raise ReadError(
            url,
            f"the file has {plane.shape[0]} x {plane.shape[1]} pixels of {plane.dtype}, the table states"
            f" {height} x {width} of {image.dtype} ({_name(image, channel)})",
        )
    y, x, rows, columns = window
    part = plane[y : y + rows, x : x + columns]
    if resize:
        from chammi75.store.resize import resize_plane

        resize_plane(part, target)
    else:
        target[:rows, :columns] = part


def _name(image: MultiChannelImage, channel: int) -> str:
    return f"{image.image_id or 'image'}, channel {channel} ({image.channels[channel]})"


def _windows(windows: Any, count: int) -> NDArray[np.int64]:
    """The windows as an array, shape (N, 4)."""
    try:
        places = np.asarray(windows)
    except ValueError:  # lists of unequal lengths
        places = np.empty(0, object)
    if not places.size and not count:
        return np.zeros((0, 4), np.int64)
    if places.shape != (count, 4) or places.dtype.kind not in "iu":
        raise ChammiError(
            f"{count} images need windows (y, x, height, width) of shape ({count}, 4), whole numbers, not"
            f" {places.dtype} of shape {places.shape}"
        )
    return places


def _picked(images: Sequence[MultiChannelImage], channels: Any) -> list[list[int]]:
    """Numbers of the channels of each image."""
    if channels is None:
        return [list(range(len(image.channels))) for image in images]
    is_sequence = channels.ndim > 0 if isinstance(channels, np.ndarray) else isinstance(channels, Sequence)
    if isinstance(channels, str) or not is_sequence:
        raise ChammiError(f"channels are a sequence: [{channels!r}], not {channels!r}")
    if not any(isinstance(key, Sequence | np.ndarray) and not isinstance(key, str) for key in channels):
        return [[image.channel_number(key) for key in channels] for image in images]
    try:
        numbers = np.asarray(channels)
    except ValueError:  # lists of unequal lengths
        numbers = np.empty(0, object)
    if numbers.ndim != 2 or len(numbers) != len(images) or numbers.dtype.kind not in "iu":
        raise ChammiError(
            f"channels of each image are whole numbers of shape ({len(images)}, C), not {numbers.dtype} of shape"
            f" {numbers.shape}"
        )
    return [[image.channel_number(k) for k in own] for image, own in zip(images, numbers.tolist(), strict=True)]


def _size(size: Any) -> tuple[int, int]:
    """Height and width that windows are resized to."""
    edges = (size, size) if isinstance(size, int | np.integer) else size
    is_pair = isinstance(edges, Sequence | np.ndarray) and len(edges) == 2
    if not is_pair or not all(isinstance(k, int | np.integer) and not isinstance(k, bool) and k > 0 for k in edges):
        raise ChammiError(f"size is a height and a width of at least 1 pixel, or one number for both, not {size!r}")
    height, width = edges
    return int(height), int(width)


def _new(
    images: Sequence[MultiChannelImage],
    windows: NDArray[np.int64],
    picks: list[list[int]],
    size: tuple[int, int] | None,
) -> Pixels:
    """An array that all crops fit into, if there is one."""
    depths = {len(pick) for pick in picks}
    if len(depths) > 1:
        raise ChammiError(
            f"the images have {', '.join(map(str, sorted(depths)))} channels: name the same number with channels=, or"
            " give out="
        )
    shapes = {tuple(window) for window in windows[:, 2:].tolist()} if size is None else {size}
    if len(shapes) > 1:
        some = ", ".join(f"{height} x {width}" for height, width in sorted(shapes)[:3])
        raise ChammiError(f"the windows differ in size ({some} …): resize them with size=, or give out=")
    height, width = shapes.pop() if shapes else (0, 0)
    widest = max((STORED_DTYPES.index(image.dtype.name) for image in images), default=2)
    dtype = np.float32 if size is not None else np.dtype(STORED_DTYPES[widest])
    return np.empty((len(images), depths.pop() if depths else 0, height, width), dtype)


def _check(
    out: Pixels,
    images: Sequence[MultiChannelImage],
    windows: NDArray[np.int64],
    picks: list[list[int]],
    size: tuple[int, int] | None,
) -> None:
    """Whether all windows are inside their images and fit into ``out``."""
    if not isinstance(out, np.ndarray):
        raise ChammiError(f"out must be a numpy array, not {type(out).__name__} (of a tensor give out=tensor.numpy())")
    if out.ndim != 4 or len(out) != len(images) or out.dtype not in map(np.dtype, STORED_DTYPES):
        raise ChammiError(
            f"out must have the shape ({len(images)}, C, H, W) and be {', '.join(STORED_DTYPES)}, not {out.shape},"
            f" {out.dtype}"
        )
    if not out.flags.writeable:
        raise ChammiError("out cannot be written to: it is read-only")
    if size is not None and out.shape[2:] != size:
        raise ChammiError(f"out of the shape {out.shape} does not fit crops of the size {size}")
    for n, (image, (y, x, rows, columns), pick) in enumerate(zip(images, windows.tolist(), picks, strict=True)):
        _, height, width = image.shape
        if y < 0 or x < 0 or rows < 1 or columns < 1 or y + rows > height or x + columns > width:
            raise ChammiError(
                f"window {n} (y={y}, x={x}, height={rows}, width={columns}) is not inside its image of {height} x"
                f" {width} pixels ({image.image_id})"
            )
        if len(pick) > out.shape[1] or (size is None and (rows > out.shape[2] or columns > out.shape[3])):
            raise ChammiError(
                f"{len(pick)} channels of {rows} x {columns} pixels (window {n}) do not fit into out of the shape"
                f" {out.shape}"
            )
        if size is None and STORED_DTYPES.index(image.dtype.name) > STORED_DTYPES.index(out.dtype.name):
            raise ChammiError(f"out of {out.dtype} cannot hold the pixels of {image.image_id}, {image.dtype}")

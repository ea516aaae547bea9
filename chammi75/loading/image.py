"""``MultiChannelImage``: all channels of an image, decoded when asked, and only what is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, MissingDependencyError, ReadError, StoreError
from chammi75.files import (
    StorageOptions,
    explain,
    is_local,
    join_url,
    read_bytes,
    read_files,
    read_ranges,
    reading_errors,
)

if TYPE_CHECKING:
    import torch
    import xarray

Window = tuple[int, int, int, int]

_SMALL_PLANE = 128 * 2**10
"""Bytes of an encoded plane below which a second round trip to a server costs more than the bytes it saves."""

_SMALL_PART = 0.5
"""Share of a plane above which a window is cut out of the whole plane."""

STORAGE_KEYS: tuple[str, ...] = (
    "image_id",
    "uri",
    "paths",
    "offsets",
    "lengths",
    "planes",
    "channel_types",
    "panels",
    "height",
    "width",
    "dtype",
    "significant_bits",
    "pixel_size_um",
)
"""What an image is stored as: where its planes are, and what must be known without reading them."""


class MultiChannelImage(Mapping[str, Any]):
    """All channels of one image; an array of shape (C, H, W) that is decoded when asked.

    It is a mapping over its storage (references, not pixels), so that Hugging Face datasets keeps it through
    ``.map``. Made by ``load_dataset``; ``MultiChannelImage.from_array`` makes one from pixels.

    Parameters
    ----------
    storage : mapping
        Values of ``STORAGE_KEYS``; missing ones are None.
    storage_options : mapping, optional
        For the fsspec filesystem of its files.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.arange(2 * 40 * 50, dtype=np.uint16).reshape(2, 40, 50)
    >>> image = MultiChannelImage.from_array(pixels, ["nucleus", "er"])
    >>> image.shape, image.channels
    ((2, 40, 50), ['nucleus', 'er'])
    >>> image["er", 10:12, 20:23].tolist() == pixels[1, 10:12, 20:23].tolist()
    True
    """

    __slots__ = ("_options", "_storage")

    def __init__(self, storage: Mapping[str, Any], storage_options: StorageOptions | None = None) -> None:
        self._storage: dict[str, Any] = {key: storage.get(key) for key in STORAGE_KEYS}
        self._options = dict(storage_options or {})

    @classmethod
    def from_array(
        cls,
        pixels: NDArray[Any],
        channel_types: Sequence[str | None] | None = None,
        *,
        panels: Sequence[str | None] | None = None,
        pixel_size_um: float | None = None,
        significant_bits: int | None = None,
        image_id: str | None = None,
    ) -> MultiChannelImage:
        """An image of these pixels, encoded without loss.

        Parameters
        ----------
        pixels : ndarray, shape (C, H, W), uint8, uint16 or float32
        channel_types : sequence of str or None, optional
            What each channel shows.

        Raises
        ------
        ChammiError
            If the shape is not (C, H, W), the names do not fit it, or the dtype cannot be stored.
        """
        from chammi75.store.plane import encode_plane

        if pixels.ndim != 3 or not pixels.size:
            raise ChammiError(f"pixels must have the shape (C, H, W), none of them 0, not {pixels.shape}")
        count = pixels.shape[0]
        for name, values in (("channel_types", channel_types), ("panels", panels)):
            if values is not None and len(values) != count:
                raise ChammiError(f"{name} has {len(values)} entries for {count} channels")
        return cls(
            {
                "image_id": image_id,
                "planes": [encode_plane(plane, "deflate") for plane in pixels],
                "channel_types": list(channel_types or [None] * count),
                "panels": list(panels or [None] * count),
                "height": pixels.shape[1],
                "width": pixels.shape[2],
                "dtype": pixels.dtype.name,
                "significant_bits": significant_bits,
                "pixel_size_um": pixel_size_um,
            }
        )

    @property
    def channels(self) -> list[str | None]:
        """What each channel shows, in stored order."""
        return list(self._storage["channel_types"])

    @property
    def panels(self) -> list[str | None]:
        """Each channel's stain or name, in the source's word."""
        return list(self._storage["panels"] or [None] * len(self.channels))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return len(self.channels), int(self._storage["height"]), int(self._storage["width"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type: uint8, uint16 or float32."""
        value: np.dtype[Any] = np.dtype(self._storage["dtype"])
        return value

    @property
    def ndim(self) -> int:
        """3."""
        return 3

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel in micrometres; None if unknown."""
        value: float | None = self._storage["pixel_size_um"]
        return value

    @property
    def significant_bits(self) -> int | None:
        """Bits that the camera filled; None for floats or if unknown."""
        value: int | None = self._storage["significant_bits"]
        return value

    @property
    def image_id(self) -> str | None:
        """Identity of the image."""
        value: str | None = self._storage["image_id"]
        return value

    def crop(self, y: int, x: int, height: int, width: int) -> NDArray[Any]:
        """A window of all channels. Only the tiles that it touches are decoded.

        Parameters
        ----------
        y, x : int
            First row and column, in pixels.
        height, width : int
            Size of the window, which must lie inside the image.

        Returns
        -------
        ndarray, shape (C, height, width)

        Raises
        ------
        ChammiError
            If the window reaches beyond the image.
        """
        return self._decode(range(len(self.channels)), (y, x, height, width))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a MultiChannelImage is decoded into a new array: copy=False is not possible")
        pixels = self._decode(range(len(self.channels)), None)
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def to_torch(self) -> torch.Tensor:
        """All channels as a tensor, shape (C, H, W), of the same dtype.

        Raises
        ------
        MissingDependencyError
            If PyTorch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError('to_torch needs PyTorch: pip install "chammi75[train]"') from error
        return torch.from_numpy(np.asarray(self))

    def to_xarray(self) -> xarray.DataArray:
        """All channels as a labelled array: dimensions channel, y, x; in µm where the pixel size is known.

        Raises
        ------
        MissingDependencyError
            If xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise MissingDependencyError("to_xarray needs xarray: pip install xarray") from error
        _, height, width = self.shape
        coordinates: dict[str, Any] = {"channel": [name or f"channel {k + 1}" for k, name in enumerate(self.channels)]}
        if self.pixel_size_um is not None:
            for name, length in (("y", height), ("x", width)):
                coordinates[name] = (name, np.arange(length) * self.pixel_size_um, {"units": "µm"})
        known = {
            "image_id": self.image_id,
            "pixel_size_um": self.pixel_size_um,
            "significant_bits": self.significant_bits,
        }
        attributes = {key: value for key, value in known.items() if value is not None}
        return xarray.DataArray(np.asarray(self), dims=("channel", "y", "x"), coords=coordinates, attrs=attributes)

    def encoded_planes(self) -> list[bytes]:
        """Each channel as the image file that it is stored as (TIFF, or the source's own PNG)."""
        return [bytes(part) for part in self._read(range(len(self.channels)))]

    def __getitem__(self, key: Any) -> Any:
        """A plane, a window of one, or a value of the storage.

        ``image["nucleus"]`` and ``image[0]`` are planes of shape (H, W); ``image["nucleus", 100:356, 40:296]`` is a
        window; ``image["protein", 1]`` picks the second of two channels that share a type; ``image[:, 0:64, 0:64]``
        has all channels.

        Raises
        ------
        KeyError
            If no channel has that type, or several have and none is picked.
        IndexError
            If there is no channel of that number.
        ChammiError
            If a window steps or is empty.
        """
        if isinstance(key, str) and key in self._storage:
            return self._storage[key]
        parts = key if isinstance(key, tuple) else (key,)
        if not parts:
            raise KeyError("a channel is picked by its type, a number or a slice, not by ()")
        channel, rest = self._channel(parts)
        if len(rest) not in (0, 2):
            raise IndexError(f"an image is indexed as [channel] or [channel, rows, columns], not with {key!r}")
        window = self._window(rest) if rest else None
        if isinstance(channel, range):
            return self._decode(channel, window)
        return self._decode([channel], window)[0]

    def __contains__(self, key: object) -> bool:
        return key in self._storage or key in self.channels

    def __iter__(self) -> Iterator[str]:
        return iter(self._storage)

    def __len__(self) -> int:
        return len(self._storage)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MultiChannelImage) and self._storage == other._storage

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._storage, self._options)

    def __repr__(self) -> str:
        channels = ", ".join(str(name) for name in self.channels)
        count, height, width = self.shape
        return f"MultiChannelImage({count} x {height} x {width} {self.dtype}: {channels})"

    def _repr_html_(self) -> str:
        from chammi75.pictures import channel_strip
        from chammi75.pictures.html import figure
        from chammi75.pictures.png import data_uri

        names = zip(self.panels, self.channels, strict=True)
        captions = [panel or name or f"channel {k + 1}" for k, (panel, name) in enumerate(names)]
        picture = channel_strip(
            np.asarray(self),
            self.channels,
            captions=captions,
            thumb=200,
            columns=6,
            pixel_size_um=self.pixel_size_um,
            significant_bits=self.significant_bits,
        )
        return str(figure(data_uri(picture), f"composite and channels: {', '.join(captions)}", repr(self)))

    def _channel(self, parts: tuple[Any, ...]) -> tuple[int | range, tuple[Any, ...]]:
        """The channel, or channels, that the first part of a key names, and what is left of the key."""
        first = parts[0]
        names = self.channels
        if isinstance(first, str):
            found = [k for k, name in enumerate(names) if name == first]
            if not found:
                known = ", ".join(repr(name) for name in names)
                raise KeyError(f"no channel is of the type {first!r}; this image has {known}")
            if len(parts) > 1 and _is_index(parts[1]):
                pick = int(parts[1])
                if not 0 <= pick < len(found):
                    raise IndexError(
                        f"{len(found)} channels are of the type {first!r}: pick 0 to {len(found) - 1}, not {pick}"
                    )
                return found[pick], parts[2:]
            if len(found) > 1:
                raise KeyError(
                    f"{len(found)} channels are of the type {first!r}: pick one with [{first!r}, 0] … [{first!r},"
                    f" {len(found) - 1}]"
                    f" or by its number ({', '.join(map(str, found))})"
                )
            return found[0], parts[1:]
        if _is_index(first):
            index = int(first)
            if not -len(names) <= index < len(names):
                raise IndexError(f"there is no channel {index}: this image has {len(names)}")
            return index % len(names), parts[1:]
        if isinstance(first, slice):
            return range(len(names))[first], parts[1:]
        raise KeyError(f"a channel is picked by its type, a number or a slice, not by {first!r}")

    def _window(self, parts: Sequence[Any]) -> Window:
        _, height, width = self.shape
        bounds = []
        for part, length, name in zip(parts, (height, width), ("rows", "columns"), strict=True):
            if not isinstance(part, slice):
                raise IndexError(f"{name} of a window are a slice (100:356), not {part!r}")
            start, stop, step = part.indices(length)
            if step != 1:
                raise ChammiError(f"a window takes every pixel: {name} cannot step by {step}")
            if stop <= start:
                raise ChammiError(f"the window has no {name}: {part.start}:{part.stop} of {length}")
            bounds.append((start, stop - start))
        (y, rows), (x, columns) = bounds
        return y, x, rows, columns

    def _decode(self, channels: Sequence[int], window: Window | None) -> NDArray[Any]:
        _, height, width = self.shape
        y, x, rows, columns = window or (0, 0, height, width)
        if y < 0 or x < 0 or rows < 1 or columns < 1 or y + rows > height or x + columns > width:
            raise ChammiError(
                f"the crop (y={y}, x={x}, height={rows}, width={columns}) is not inside the image of"
                f" {height} x {width} pixels"
            )
        pixels = np.empty((len(channels), rows, columns), self.dtype)
        contents = self._read(channels, (y, x, rows, columns))
        for target, channel, content in zip(pixels, channels, contents, strict=True):
            self._decode_plane(content, (y, x, rows, columns), target, channel)
        return pixels

    def _decode_plane(self, content: Any, window: Window, target: NDArray[Any], channel: int) -> None:
        from chammi75.store.plane import decode_plane

        name = f"{self.image_id or 'image'}, channel {channel} ({self.channels[channel]})"
        if bytes(content[:4]) == b"II*\0":
            try:
                decode_plane(content, window, target)
            except StoreError as error:
                raise StoreError(f"{self._storage['uri'] or 'in memory'}: {name}: {error}") from error
            return
        from chammi75.readers.registry import open_image

        with open_image(self._plane_url(channel), content=bytes(content)) as reader:
            plane = reader.read_plane()
        _, height, width = self.shape
        if plane.shape != (height, width) or plane.dtype != self.dtype:
            raise ReadError(
                self._plane_url(channel),
                f"the file has {plane.shape[0]} x {plane.shape[1]} pixels of {plane.dtype}, the table states"
                f" {height} x {width} of {self.dtype} ({name})",
            )
        y, x, rows, columns = window
        target[:] = plane[y : y + rows, x : x + columns]

    def _plane_url(self, channel: int) -> str:
        paths = self._storage["paths"]
        base = self._storage["uri"] or self.image_id or "image"
        return join_url(base, paths[channel]) if paths else base

    def _read(self, channels: Sequence[int], window: Window | None = None) -> list[Any]:
        """The encoded planes of some channels: mapped, from memory, or read from their files.

        Of a remote store only what a window needs is read; the rest of the plane is zeros then.
        """
        storage = self._storage
        if storage["planes"] is not None:
            return [memoryview(storage["planes"][channel]) for channel in channels]
        if storage["paths"] is not None:
            return [memoryview(part) for part in self._read_planes([self._plane_url(channel) for channel in channels])]
        ranges = [(int(storage["offsets"][channel]), int(storage["lengths"][channel])) for channel in channels]
        url = storage["uri"]
        if is_local(url):
            from chammi75.store.reader import map_file

            view = memoryview(map_file(url))
            parts: list[Any] = [view[offset : offset + length] for offset, length in ranges]
        else:
            try:
                parts = [memoryview(part) for part in self._read_remote(url, ranges, window)]
            except reading_errors() as error:
                reason = explain(error, url, self._options)
                raise StoreError(f"{url}: the file cannot be read: {reason} ({self.image_id})") from error
        for (offset, length), part in zip(ranges, parts, strict=True):
            if len(part) != length:
                raise StoreError(f"{url}: cut short: {self.image_id} should be at bytes {offset} to {offset + length}")
        return parts

    def _read_remote(self, url: str, ranges: list[tuple[int, int]], window: Window | None) -> list[Any]:
        """Planes of a remote shard; where a window is small beside them, their heads first, and then its tiles."""
        from chammi75.store.plane import head_bytes, parse_head, tile_ranges

        _, height, width = self.shape
        part = window[2] * window[3] / (height * width) if window else 1.0
        if part > _SMALL_PART or max(length for _, length in ranges) < _SMALL_PLANE:
            return list(read_ranges(url, ranges, self._options))
        assert window is not None
        size = head_bytes(height, width)
        heads = read_ranges(url, [(offset, size) for offset, _ in ranges], self._options)
        try:
            spans = [tile_ranges(parse_head(head), window) for head in heads]
        except StoreError as error:
            raise StoreError(f"{url}: {self.image_id}: {error}") from error
        wanted = [(offset + at, size) for (offset, _), tiles in zip(ranges, spans, strict=True) for at, size in tiles]
        read = iter(read_ranges(url, wanted, self._options))
        planes = []
        for (_, length), head, tiles in zip(ranges, heads, spans, strict=True):
            plane = np.zeros(length, np.uint8)
            plane[: len(head)] = np.frombuffer(head, np.uint8)
            for at, size in tiles:
                content = np.frombuffer(next(read), np.uint8)
                if len(content) != size or at + size > length:
                    raise StoreError(f"{url}: {self.image_id}: the plane is damaged or cut short")
                plane[at : at + size] = content
            planes.append(plane)
        return planes

    def _read_planes(self, urls: list[str]) -> list[bytes]:
        """Whole files, together; where that fails one by one, to tell which it is."""
        with suppress(ReadError, *reading_errors()):
            return [part for part in read_files(urls, self._options) if part is not None]
        return [self._read_file(url) for url in urls]

    def _read_file(self, url: str) -> bytes:
        try:
            return read_bytes(url, self._options)
        except FileNotFoundError as error:
            raise ReadError(url, f"the file is not there ({self.image_id})") from error
        except reading_errors() as error:
            reason = explain(error, url, self._options)
            raise ReadError(url, f"the file cannot be read: {reason} ({self.image_id})") from error


def _is_index(part: Any) -> bool:
    return isinstance(part, int | np.integer) and not isinstance(part, bool)

"""``MultiChannelImage``: all channels of an image, decoded when asked, and only what is asked."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chammi75.errors import ChammiError, MissingDependencyError
from chammi75.files import StorageOptions
from chammi75.loading.crops import decode_channels
from chammi75.loading.encoded import Window, read_encoded

if TYPE_CHECKING:
    import torch
    import xarray

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

    @property
    def storage_options(self) -> dict[str, Any]:
        """For the fsspec filesystem of its files."""
        return self._options

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

    def channel_number(self, key: int | str) -> int:
        """The number of the channel that a number, or a type that one channel alone has, stands for.

        Raises
        ------
        KeyError, IndexError
            As ``image[key]``.
        """
        number, _ = self._channel((key,))
        if isinstance(number, range):
            raise KeyError(f"one channel is picked by its type or a number, not by {key!r}")
        return number

    def encoded_planes(self) -> list[bytes]:
        """Each channel as the image file that it is stored as (TIFF, or the source's own PNG)."""
        count = len(self.channels)
        return [bytes(plane) for plane in read_encoded([self] * count, range(count), [None] * count)]

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
        try:
            y, x, rows, columns = map(operator.index, window or (0, 0, height, width))
        except TypeError as error:
            raise ChammiError(f"a crop (y, x, height, width) is four whole numbers, not {window}") from error
        if y < 0 or x < 0 or rows < 1 or columns < 1 or y + rows > height or x + columns > width:
            raise ChammiError(
                f"the crop (y={y}, x={x}, height={rows}, width={columns}) is not inside the image of"
                f" {height} x {width} pixels"
            )
        pixels = np.empty((len(channels), rows, columns), self.dtype)
        images, windows = [self] * len(channels), np.array([[y, x, rows, columns]] * len(channels), np.int64)
        decode_channels(images, channels, windows, pixels, np.arange(len(channels)))
        return pixels


def _is_index(part: Any) -> bool:
    return isinstance(part, int | np.integer) and not isinstance(part, bool)

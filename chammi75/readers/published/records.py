"""Records out of published columns: one Arrow row per image, with lists of one entry per plane."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi75.readers.published.csv_rows import NULL, TextColumn, concatenated, words_at
from chammi75.readers.published.files import GUIDANCE_FOLDER, PLANES_FOLDER

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGES_PER_CHUNK = 100_000
_OF_SOURCE = ("platform", "title", "license", "doi")


@dataclass(frozen=True)
class PublishedImages:
    """What is known of the images that are kept, before it becomes records.

    Parameters
    ----------
    image_id, multi_channel_id : pyarrow.LargeStringArray
        Shape (images,).
    text : dict
        Columns of text, by dotted name, shape (images,).
    numbers : dict
        Columns of numbers, by dotted name, shape (images,): int64 with ``NULL``, or float64 with nan.
    first_plane : numpy.ndarray
        Shape (images + 1,), int64: where each image's planes begin in the arrays below.
    channel : numpy.ndarray
        Shape (planes,), int64.
    channel_type, panel, filename : TextColumn
        Shape (planes,).
    path : pyarrow.LargeStringArray
        Shape (planes,).
    guidance : pyarrow.LargeStringArray
        Shape (planes,): null where there is none.
    first_missing, missing : numpy.ndarray
        Shapes (images + 1,) and (numbers,), int64: the numbers of the channels that each image lacks.
    """

    image_id: pa.Array
    multi_channel_id: pa.Array
    text: dict[str, TextColumn]
    numbers: dict[str, np.ndarray]
    first_plane: np.ndarray
    channel: np.ndarray
    channel_type: TextColumn
    panel: TextColumn
    filename: TextColumn
    path: pa.Array
    guidance: pa.Array
    first_missing: np.ndarray
    missing: np.ndarray


def records_and_guidance(images: PublishedImages) -> tuple[pa.Table, pa.ChunkedArray]:
    """The records (``chammi75.schemas.arrow.record_schema``) and the guidance path of each plane, as list<string>.

    Platform, title, licence and DOI are those that the table states, else those of the card of the study; null where it
    states none and no card has its name.
    """
    import pyarrow as pa

    from chammi75.catalog import Catalog
    from chammi75.schemas.arrow import record_schema
    from chammi75.schemas.vocabulary import vocabulary

    schema = record_schema()
    organisms, types = vocabulary("organisms"), vocabulary("microscopy_types")
    ids = {
        "biology.organism": _term_ids(images.text["biology.organism"], organisms.find),
        "microscopy.type": _term_ids(images.text["microscopy.type"], types.find),
    }
    cards = [Catalog().provenance(word) for word in images.text["provenance.source"].words]
    for name in _OF_SOURCE:
        ids[f"provenance.{name}"] = tuple(getattr(card, name) for card in cards)
    batches, guidance = [], []
    for start, stop in _parts(len(images.image_id)):
        batch, paths = _chunk(images, ids, start, stop, schema)
        batches.append(batch)
        guidance.append(paths)
    return pa.Table.from_batches(batches, schema), pa.chunked_array(guidance, pa.list_(pa.string()))


def _term_ids(column: TextColumn, find: Any) -> tuple[str | None, ...]:
    return tuple(term.id if (term := find(word)) is not None else None for word in column.words)


def _chunk(
    images: PublishedImages, ids: dict[str, tuple[str | None, ...]], start: int, stop: int, schema: pa.Schema
) -> tuple[pa.RecordBatch, pa.Array]:
    import pyarrow as pa
    from pyarrow import compute as pc

    count = stop - start
    offsets = images.first_plane[start : stop + 1]
    planes = slice(int(offsets[0]), int(offsets[-1]))
    plane_offsets = pa.array(offsets - offsets[0], pa.int32())
    missing_offsets = images.first_missing[start : stop + 1]
    missing = images.missing[int(missing_offsets[0]) : int(missing_offsets[-1])]

    def text(name: str) -> pa.Array:
        column = images.text[name]
        return words_at(column.words, column.codes[start:stop])

    def number(name: str, kind: pa.DataType) -> pa.Array:
        values = images.numbers[name][start:stop]
        return pa.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else values == NULL).cast(kind)

    def per_plane(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(plane_offsets, values)

    def words(column: TextColumn) -> pa.Array:
        return per_plane(words_at(column.words, column.codes[planes]))

    def strings(array: pa.Array, part: slice) -> pa.Array:
        return array.slice(part.start, part.stop - part.start).cast(pa.string())

    def same(value: Any) -> pa.Array:
        return pa.repeat(value, count)

    def term_id(name: str) -> pa.Array:
        return words_at(ids[name], images.text[name].codes[start:stop])

    def struct(group: str, **children: pa.Array) -> pa.Array:
        kind = schema.field(group).type
        arrays = [children.pop(field.name) if field.name in children else _empty(field.type, count) for field in kind]
        if children:
            raise TypeError(f"{group} has no fields {sorted(children)}")
        return pa.StructArray.from_arrays(
            [array.cast(field.type) for array, field in zip(arrays, kind, strict=True)], fields=list(kind)
        )

    # 8 bits unless the table says 16: another word than those two is none that a PNG holds
    dtype = pc.if_else(pc.equal(text("geometry.dtype"), "uint16").fill_null(False), "uint16", "uint8")
    no_lists = pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], pa.string()))
    columns = {
        "image_id": strings(images.image_id, slice(start, stop)),
        "experiment": struct(
            "experiment",
            **{name: text(f"experiment.{name}") for name in ("study", "plate", "well", "reagent", "control")},
        ),
        "biology": struct(
            "biology",
            organism_id=term_id("biology.organism"),
            **{name: text(f"biology.{name}") for name in ("organism", "cell_line", "cell_type")},
        ),
        "imaging": struct(
            "imaging",
            multi_channel_id=strings(images.multi_channel_id, slice(start, stop)),
            channel=per_plane(pa.array(images.channel[planes], pa.int32())),
            channel_type=words(images.channel_type),
            panel=words(images.panel),
            missing_channel=pa.ListArray.from_arrays(
                pa.array(missing_offsets - missing_offsets[0], pa.int32()), pa.array(missing, pa.int32())
            ),
        ),
        "microscopy": struct(
            "microscopy",
            type=text("microscopy.type"),
            type_id=term_id("microscopy.type"),
            magnification=number("microscopy.magnification", pa.float64()),
            magnification_text=text("microscopy.magnification"),
            fov=text("microscopy.fov"),
        ),
        "geometry": struct(
            "geometry",
            channels=pa.array(np.diff(offsets), pa.int32()),
            dtype=dtype,
            significant_bits=pc.coalesce(
                number("geometry.significant_bits", pa.int32()), pc.if_else(pc.equal(dtype, "uint16"), 16, 8)
            ),
            **{
                name: number(f"geometry.{name}", pa.int32())
                for name in ("width", "height", "depth", "z_slice", "timepoint")
            },
        ),
        "storage": struct("storage", filename=words(images.filename), path=per_plane(strings(images.path, planes))),
        "provenance": struct(
            "provenance",
            source=text("provenance.source"),
            **{
                name: pc.coalesce(
                    text(f"provenance.{name}"),
                    words_at(ids[f"provenance.{name}"], images.text["provenance.source"].codes[start:stop]),
                )
                for name in _OF_SOURCE
            },
            uri=per_plane(pa.nulls(planes.stop - planes.start, pa.string())),
            checksum=no_lists,
            reader=same("png"),
            format=same("png"),
            steps=no_lists,
        ),
    }
    arrays = [columns[field.name] if field.name in columns else _empty(field.type, count) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema), per_plane(strings(images.guidance, planes))


def _empty(kind: pa.DataType, count: int) -> pa.Array:
    """Nulls; of a struct, one whose fields are null."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([_empty(field.type, count) for field in kind], fields=list(kind))
    return pa.nulls(count, kind)


def image_names(paths: pa.Array, first_plane: np.ndarray) -> pa.Array:
    """The path of each image, with ``*`` for what tells its planes' files apart.

    Parameters
    ----------
    paths : pyarrow.LargeStringArray
        Shape (planes,): the planes' paths, those of an image side by side.
    first_plane : numpy.ndarray
        Shape (images + 1,), int64: where each image's planes begin; every image has one.

    Returns
    -------
    pyarrow.LargeStringArray
        Shape (images,).

    Examples
    --------
    >>> import pyarrow as pa
    >>> paths = pa.array(["a/x-ch0.png", "a/x-ch1.png", "b/y_DAPI.png"], pa.large_string())
    >>> image_names(paths, np.array([0, 2, 3])).to_pylist()
    ['a/x-ch*.png', 'b/y_DAPI.png']
    """
    import pyarrow as pa

    named = [
        _image_names(
            paths.slice(int(first_plane[start]), int(first_plane[stop] - first_plane[start])),
            first_plane[start : stop + 1] - first_plane[start],
        )
        for start, stop in _parts(len(first_plane) - 1)
    ]
    return pa.concat_arrays([pa.array([], pa.large_string()), *named])


def _parts(images: int) -> Iterator[tuple[int, int]]:
    for start in range(0, images, _IMAGES_PER_CHUNK):
        yield start, min(start + _IMAGES_PER_CHUNK, images)


def _image_names(paths: pa.Array, first_plane: np.ndarray) -> pa.Array:
    import pyarrow as pa
    from pyarrow import compute as pc

    starts = first_plane[:-1]
    image = np.repeat(np.arange(len(starts)), np.diff(first_plane))
    # All but the last five bytes of "…-ch0.png": bytes, because cutting characters is three times slower.
    raw = paths.cast(pa.large_binary())
    stems = pc.binary_slice(raw, 0, -5)
    firsts = stems.take(starts)
    digits = pc.binary_slice(raw, -5, -4)
    plain = pc.and_(
        pc.and_(pc.equal(stems, firsts.take(image)), pc.ends_with(raw, b".png")),
        pc.and_(pc.greater_equal(digits, b"0"), pc.less_equal(digits, b"9")),
    )
    usual = np.logical_and.reduceat(plain.to_numpy(zero_copy_only=False), starts)
    usual &= pc.ends_with(firsts, b"-ch").to_numpy(zero_copy_only=False)
    names = concatenated(firsts, "*.png")
    others = np.flatnonzero(~usual)
    if len(others):
        unusual = [
            wildcard_name(paths.slice(int(first_plane[i]), int(first_plane[i + 1] - first_plane[i])).to_pylist())
            for i in others
        ]
        names = pc.replace_with_mask(names, pa.array(~usual), pa.array(unusual, pa.large_string()))
    return names


def wildcard_name(paths: Sequence[str]) -> str:
    """One name for the files of one image: ``*`` stands for the channel, else for whatever differs.

    Examples
    --------
    >>> wildcard_name(["s/a-ch0.png", "s/a-ch10.png"]), wildcard_name(["s/a_w1.tif", "s/a_w2.tif"])
    ('s/a-ch*.png', 's/a_w*.tif')
    """
    by_channel = {re.sub(r"-ch[0-9]+(\.[^./]*)?$", r"-ch*\1", path) for path in paths}
    if len(by_channel) == 1:
        return by_channel.pop()
    start = _common_start(paths)
    rests = [path[len(start) :][::-1] for path in paths]
    return f"{start}*{_common_start(rests)[::-1]}"


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # whatever these two share, those between them share too
    length = next((k for k, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:length]


def guidance_paths(paths: pa.Array) -> pa.Array:
    """Where the guidance file of each plane would be; null for files outside ``CHAMMI-75_train``.

    Examples
    --------
    >>> import pyarrow as pa
    >>> guidance_paths(pa.array(["CHAMMI-75_train/s/a-ch0.png", "s/b.png"], pa.large_string())).to_pylist()
    ['CHAMMI-75_guidance/s/a-ch0.safetensors', None]
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    raw = paths.cast(pa.large_binary())
    prefix, suffix = f"{PLANES_FOLDER}/".encode(), b".png"
    middle = pc.binary_slice(raw, len(prefix), -len(suffix))
    fits = pc.and_(pc.starts_with(raw, prefix), pc.ends_with(raw, suffix))
    expected = concatenated(f"{GUIDANCE_FOLDER}/", middle, ".safetensors")
    return pc.if_else(fits, expected, pa.scalar(None, expected.type))


def panel_words(panel: TextColumn, channel: np.ndarray, channels: np.ndarray) -> TextColumn:
    """Each channel's word of the panel: the k-th for channel k where the panel has one word per channel, else all of
    it.

    Parameters
    ----------
    panel : TextColumn
        Shape (planes,): "DNA, phospho-histone H3, actin".
    channel, channels : numpy.ndarray
        Shape (planes,), int64: the plane's number, and how many channels its image is stated to have (``NULL``: not
        stated).
    """
    split = [[word.strip() for word in text.split(",")] for text in panel.words]
    codes_of: dict[str, int] = {}

    def code(word: str) -> int:
        return codes_of.setdefault(word, len(codes_of)) if word else -1

    whole = np.array([*(code(text) for text in panel.words), -1], np.int32)
    single = np.array([code(word) for words in split for word in words] or [-1], np.int32)
    counts = np.array([*(len(words) for words in split), 0], np.int64)
    begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
    fits = (counts[panel.codes] == channels) & (channel >= 1) & (channel <= channels)
    position = np.where(fits, begins[panel.codes] + channel - 1, 0)
    return TextColumn(tuple(codes_of), np.where(fits, single[position], whole[panel.codes]).astype(np.int32))

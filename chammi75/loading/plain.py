"""From lazy images to ordinary ``List(Image())`` columns, which anybody opens without this library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from chammi75.loading.image import MultiChannelImage

DatasetT = TypeVar("DatasetT", "datasets.Dataset", "datasets.IterableDataset")


def to_plain(dataset: DatasetT, codec: Literal["deflate"] | None = "deflate") -> DatasetT:
    """The same samples with ``planes``, a ``List(Image())``, in place of ``image``: for the Hub, for other people.

    What comes back also refuses to be published without a licence: its ``push_to_hub`` is that of Hugging Face datasets
    but for that, and writes the licence into the dataset card (see ``chammi75.loading.publishing``). Licences and
    what to cite are in its ``info``.

    Parameters
    ----------
    dataset : datasets.Dataset or datasets.IterableDataset
        With a column ``image`` of multi-channel images.
    codec : {"deflate", None}
        ``"deflate"`` writes Zstandard planes anew, since not every Pillow reads those; None keeps the stored bytes.

    Returns
    -------
    datasets.Dataset or datasets.IterableDataset

    Raises
    ------
    ChammiError
        If there is no such column.
    """
    from datasets import Features, Image, List, Value

    from chammi75.loading.feature import CellsFeature, MultiChannelImageFeature

    features = dataset.features
    if features is None or not isinstance(features.get("image"), MultiChannelImageFeature):
        raise ChammiError(
            "to_plain takes a dataset of load_dataset: it needs a column 'image' of multi-channel images"
            " (a stream forgets its types in .map: apply to_plain before it, or give .map features=dataset.features)"
        )
    plain: dict[str, Any] = {name: feature for name, feature in features.items() if name != "image"}
    plain["planes"] = List(Image())
    if isinstance(features.get("annotation"), CellsFeature):
        plain["annotation"] = {
            "centroids": List(List(List(Value("float32"), length=2))),
            "sizes": List(List(Value("float32"))),
        }
    planned = Features(plain)
    arguments = {
        "types": {"image": features["image"], "annotation": features.get("annotation")},
        "codec": codec,
        "metadata": planned.arrow_schema.metadata,
    }
    mapped = dataset.with_format("arrow").map(
        _plain_samples, fn_kwargs=arguments, remove_columns=["image"], features=planned
    )
    from chammi75.loading.publishing import publishable

    return publishable(mapped.with_format(None), dataset)


def _plain_samples(
    samples: pa.Table, types: dict[str, Any], codec: Literal["deflate"] | None, metadata: dict[bytes, bytes]
) -> pa.Table:
    """Arrow in and out, so that streams keep their types too; ``metadata`` states these in files."""
    import pyarrow as pa

    from chammi75.loading.feature import CellsFeature
    from chammi75.schemas.arrow import arrow_type, planes_type
    from chammi75.schemas.record import Annotation

    images = [types["image"].decode_example(entry) for entry in samples.column("image").to_pylist()]
    planes = [[{"bytes": plane, "path": None} for plane in _encoded(image, codec)] for image in images]
    if isinstance(types["annotation"], CellsFeature):
        values = [
            entry and _listed(types["annotation"].decode_example(entry))
            for entry in samples.column("annotation").to_pylist()
        ]
        position = samples.schema.get_field_index("annotation")
        samples = samples.set_column(position, "annotation", pa.array(values, arrow_type(Annotation)))
    samples = samples.drop_columns(["image"]).append_column("planes", pa.array(planes, planes_type()))
    return samples.replace_schema_metadata(metadata)


def _encoded(image: MultiChannelImage, codec: Literal["deflate"] | None) -> list[bytes]:
    from chammi75.store.plane import transcode_plane

    planes = image.encoded_planes()
    if codec is None:
        return planes
    return [transcode_plane(plane, codec) if plane[:4] == b"II*\0" else plane for plane in planes]


def _listed(cells: dict[str, list[Any]] | None) -> dict[str, list[Any]] | None:
    if cells is None:
        return None
    return {name: [None if entry is None else entry.tolist() for entry in entries] for name, entries in cells.items()}

"""From lazy images to ordinary ``List(Image())`` columns, which anybody opens without this library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from chammi75.errors import ChammiError

if TYPE_CHECKING:
    import datasets

DatasetT = TypeVar("DatasetT", "datasets.Dataset", "datasets.IterableDataset")


def to_plain(dataset: DatasetT, codec: Literal["deflate"] | None = "deflate") -> DatasetT:
    """The same samples with ``planes``, a ``List(Image())``, in place of ``image``: for the Hub, for other people.

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

    from chammi75.loading.feature import MultiChannelImageFeature

    features = dataset.features
    if features is None or not isinstance(features.get("image"), MultiChannelImageFeature):
        raise ChammiError("to_plain takes a dataset of load_dataset: it needs a column 'image' of multi-channel images")
    plain: dict[str, Any] = {name: feature for name, feature in features.items() if name not in ("image", "annotation")}
    plain["planes"] = List(Image())
    if "annotation" in features:
        plain["annotation"] = {
            "centroids": List(List(List(Value("float32"), length=2))),
            "sizes": List(List(Value("float32"))),
        }
    return dataset.map(_plain_sample, fn_kwargs={"codec": codec}, remove_columns=["image"], features=Features(plain))


def _plain_sample(sample: dict[str, Any], codec: Literal["deflate"] | None) -> dict[str, Any]:
    from chammi75.store.plane import transcode_plane

    planes = sample["image"].encoded_planes()
    if codec is not None:
        planes = [transcode_plane(plane, codec) if plane[:4] == b"II*\0" else plane for plane in planes]
    values: dict[str, Any] = {"planes": [{"bytes": plane, "path": None} for plane in planes]}
    if sample.get("annotation") is not None:
        values["annotation"] = {
            name: [None if entry is None else entry.tolist() for entry in sample["annotation"][name]]
            for name in ("centroids", "sizes")
        }
    return values

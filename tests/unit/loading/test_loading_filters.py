"""Filters by keyword and by SQL: what they keep, and what they say of values that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading_stores import STUDIES, Known, write_store

from chammi75 import load_dataset
from chammi75.errors import ChammiError, FilterError

PLATE1, PLATE2, PLATE3 = ([f"plate{k + 1}/P{n:02d}_*.tif" for n in range(10 * k, 10 * k + 10)] for k in range(3))


def ids(url: Any, **filters: Any) -> list[str]:
    streamed = [
        sample["image_id"] for sample in load_dataset(url, streaming=True, **filters).select_columns("image_id")
    ]
    assert list(load_dataset(url, **filters)["image_id"]) == streamed
    return streamed


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"organism": "Homo sapiens"}, PLATE1),
        ({"organism": ["Homo sapiens", "Mus musculus"]}, PLATE1 + PLATE2),
        ({"study": "plate3"}, PLATE3),
        ({"study": ("plate2", "plate3")}, PLATE2 + PLATE3),
        ({"platform": "idr"}, PLATE1 + PLATE3),
        ({"cell_line": "3T3"}, PLATE2),
        ({"microscopy_type": "bright-field"}, PLATE3),
        ({"license": "CC0-1.0"}, PLATE2),
        ({"channel_type": "nucleus"}, PLATE1 + PLATE2),
        ({"channel_type": ["nucleus", "protein"]}, PLATE1),
        ({"magnification": 20}, PLATE1),
        ({"magnification": [20, 63]}, PLATE1 + PLATE2),
        ({"magnification": (30, 63)}, PLATE2),
        ({"magnification": (None, 40)}, PLATE1),
        ({"magnification": {"min": 30}}, PLATE2),
        ({"num_channels": 1}, PLATE3),
        ({"num_channels": (1, 2)}, PLATE2 + PLATE3),
        ({"num_channels": {"min": 2, "max": 4}}, PLATE1 + PLATE2),
        ({"select_channels": "protein"}, PLATE1),
        ({"organism": "Homo sapiens", "channel_type": "er", "magnification": (10, 30)}, PLATE1),
        ({"platform": "idr", "where": "experiment.well = 'A05'"}, PLATE1[5:6]),
        ({"where": "quality.focus > 2.85"}, PLATE3[9:]),
        ({"where": "list_contains(imaging.channel_type, 'er') AND experiment.study <> 'plate1'"}, PLATE2),
        ({"where": "len(imaging.channel) BETWEEN 2 AND 3 -- two or three"}, PLATE2),
        ({"where": "quality['focus'] < 0.15 /* the first two */"}, PLATE1[:2]),
        ({"where": "experiment.plate = 'plate ''1''' AND image_id LIKE 'plate1/%'"}, PLATE1[1::2]),
        ({"where": "image_id IN (SELECT image_id FROM records WHERE biology.organism IS NULL)"}, PLATE3),
        ({"where": "list_max(quality.per_channel.focus) = 3"}, PLATE1),
        ({"where": "len(list_filter(imaging.channel_type, lambda word: word = 'protein')) = 2"}, PLATE1),
    ],
    ids=str,
)
def test_filters_keep_what_they_say(store: Known, memory_store: Known, filters: Any, expected: list[str]) -> None:
    assert ids(store.url, **filters) == expected
    assert ids(memory_store.url, **filters) == expected


def test_filters_on_the_published_layout(published: Known) -> None:
    assert ids(published.url, organism="Homo sapiens") == published.ids[1::2]
    assert ids(published.url, channel_type=["nucleus", "protein"], study="study0001") == [
        name for name in published.ids[1::2] if "study0001" in name
    ]
    assert ids(published.url, where="experiment.well = 'B03'") == published.ids[3:4]
    assert ids(published.url, num_channels=1, magnification=20.0) == published.ids[::2]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"organism": "Homo sapien"}, ["Homo sapien", "'Homo sapiens'"]),
        ({"organism": "human"}, ["'Homo sapiens'"]),
        ({"channel_type": "DAPI"}, ["called 'nucleus'"]),
        ({"channel_type": ["nucleus", "protien"]}, ["'protien'", "'protein'"]),
        ({"select_channels": "endoplasmic reticulum"}, ["'er'"]),
        ({"license": "comercial"}, ["'CC-BY-4.0'", "did you mean the set 'commercial'?"]),
        ({"license": ["CC-BY-4.0", "xyz"]}, ["'xyz'", "sets are 'commercial'"]),
        ({"study": "xyz"}, ["'plate1'", "'plate2'", "'plate3'"]),
        ({"magnification": 40}, ["40", "20, 63"]),
        ({"magnification": (70, 100)}, ["20, 63"]),
        ({"magnification": (63, 20)}, ["empty range", "smaller"]),
        ({"magnification": "20x"}, ["20x", "number"]),
        ({"magnification": {"low": 3}}, ["min", "max"]),
        ({"magnification": []}, ["magnification"]),
        ({"num_channels": 9}, ["1, 2, 4"]),
        ({"organism": 3}, ["word"]),
        ({"organism": []}, ["word"]),
        ({"channel_type": "bright-field", "organism": "Homo sapiens"}, ["no image passes", "bright-field"]),
        ({"where": "quality.focus > 100"}, ["no image passes", "quality.focus > 100"]),
        ({"where": "focus > 1"}, ["quality.focus"]),
        ({"where": "quality.fcus > 1"}, ["quality.focus"]),
        ({"where": "experiment.studdy = 'x'"}, ["experiment.study"]),
        ({"where": "widht > 3"}, ["geometry.width"]),
        ({"where": "curation.cluster = 3"}, ["curation.cluster", "unknown for every image"]),
        ({"where": "(curation).cluster = 3"}, ["curation.cluster", "unknown for every image"]),
        ({"where": "curation['cluster'] = 3 OR true"}, ["curation.cluster", "unknown for every image"]),
        ({"where": "geometry.width >"}, ["syntax error"]),
        ({"where": "geometry"}, ["cannot be used"]),
        ({"where": ""}, ["SQL condition"]),
    ],
    ids=str,
)
def test_what_is_not_there_is_an_error_that_helps(store: Known, filters: Any, words: list[str]) -> None:
    with pytest.raises(FilterError) as error:
        load_dataset(store.url, **filters)
    for word in words:
        assert word in str(error.value)


def test_a_filter_on_what_is_unknown_throughout_says_so(published: Known) -> None:
    with pytest.raises(FilterError, match="cell_line is unknown for every image"):
        load_dataset(published.url, cell_line="U2OS")


HOSTILE = [
    "EXISTS(SELECT * FROM '{secret}')",
    "EXISTS(SELECT * FROM read_csv('{secret}'))",
    "EXISTS(SELECT * FROM read_text('{secret}'))",
    "(SELECT content FROM read_blob('{secret}')) IS NOT NULL",
    "EXISTS(SELECT * FROM glob('{folder}/*'))",
    "EXISTS(SELECT * FROM sniff_csv('{secret}'))",
    "EXISTS(SELECT * FROM parquet_metadata('{secret}'))",
    "EXISTS(SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet'))",
    "EXISTS(SELECT * FROM 's3://bucket/x.parquet')",
    "EXISTS(FROM python_variable)",
    "EXISTS(FROM query('SELECT * FROM read_text(''{secret}'')'))",
    "EXISTS(FROM query_table('{secret}'))",
    "getenv('HOME') IS NOT NULL",
    "true) UNION SELECT 1 FROM records WHERE (true",
    "true) UNION ALL SELECT 999999999 WHERE (true",
    "true) ORDER BY (1",
    "true) LIMIT (1",
    "true) GROUP BY ALL HAVING (true",
    "true), (true",
    "true) FROM records WHERE (true",
    "true; SELECT 1",
    "true); COPY records TO '{target}'; SELECT (true",
    "true); ATTACH '{target}'; SELECT (true",
    "EXISTS(WITH x AS (COPY records TO '{target}') SELECT 1)",
    "COPY records TO '{target}'",
    "ATTACH '{target}' AS x",
    "EXPORT DATABASE '{target}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "SET enable_external_access = true",
    "true); SET enable_external_access = true; SELECT (true",
    "CREATE TABLE x AS SELECT 1",
    "DROP VIEW records",
    "image_id = $1",
    "\0",
]


@pytest.mark.parametrize("where", HOSTILE)
def test_sql_reaches_nothing_but_the_records(
    store: Known, published: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import pyarrow as pa

    python_variable = pa.table({"a": [1]})
    assert python_variable.num_rows
    secret, target = tmp_path / "secret.csv", tmp_path / "target.db"
    secret.write_text("a\nsecret-word\n")
    monkeypatch.chdir(tmp_path)
    for known in (store, published):
        with pytest.raises(FilterError) as error:
            load_dataset(known.url, where=where.format(secret=secret, folder=tmp_path, target=target))
        assert "secret-word" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_the_index_itself_may_be_queried_and_no_other_file_of_the_store(store: Known) -> None:
    manifest = f"{store.url}/manifest.json".replace("'", "''")
    with pytest.raises(FilterError, match="refused"):
        load_dataset(store.url, where=f"EXISTS(SELECT * FROM read_text('{manifest}'))")


def test_filters_over_several_stores_keep_from_each_what_passes(store: Known, published: Known) -> None:
    both = [store.url, published.url]
    assert ids(both) == store.ids + published.ids
    assert ids(both, organism="Mus musculus") == PLATE2 + published.ids[::2]
    assert ids(both, study=["plate2"]) == PLATE2  # the other does not know this study
    assert ids(both, study=["plate2", "study0001"]) == PLATE2 + [name for name in published.ids if "study0001" in name]
    with pytest.raises(FilterError, match="'plate2'"):
        load_dataset(both, study="plate22")


def test_a_split_that_is_not_there_is_named(known: Known) -> None:
    assert ids(known.url, split=None) == known.ids
    with pytest.raises(FilterError, match=r"no split 'test'.*train"):
        load_dataset(known.url, split="test")


@pytest.mark.parametrize("streaming", [False, True])
def test_select_channels_shrinks_everything_that_is_per_channel(store: Known, streaming: bool) -> None:
    dataset = load_dataset(store.url, select_channels=["protein", "er"], streaming=streaming)
    samples = list(dataset)
    assert [sample["image_id"] for sample in samples] == PLATE1 + PLATE2
    for sample in samples:
        whole = STUDIES[0 if sample["image_id"] in PLATE1 else 1]["channels"]
        kept = [k for k, name in enumerate(whole) if name in ("er", "protein")]
        name = sample["image_id"]
        assert sample["imaging"]["channel_type"] == sample["image"].channels == [whole[k] for k in kept]
        assert sample["imaging"]["channel"] == [k + 1 for k in kept]
        assert sample["imaging"]["panel"] == sample["image"].panels == [f"<{whole[k]}> & dye" for k in kept]
        files = [f"{name[7:10]}_{k}.tif" for k in kept]
        assert sample["storage"] == {"filename": files, "path": files}
        assert sample["provenance"]["checksum"] == files
        assert sample["provenance"]["uri"] == []
        assert sample["quality"]["per_channel"]["focus"] == [float(k) for k in kept]
        assert sample["geometry"]["channels"] == len(kept)
        assert np.array_equal(np.asarray(sample["image"]), store.pixels[name][kept])
        cells = store.cells[name]
        assert (sample["annotation"] is None) == (cells is None)
        for place, k in enumerate(kept):
            if cells is not None:
                found, cell = sample["annotation"]["centroids"][place], cells[k]
                assert (found is None) == (cell is None)
                assert cell is None or np.array_equal(found, cell.centroids)


def test_select_channels_on_the_published_layout(published: Known) -> None:
    samples = list(load_dataset(published.url, select_channels="protein", streaming=True))
    assert [sample["image_id"] for sample in samples] == published.ids[1::2]
    for sample in samples:
        assert np.array_equal(np.asarray(sample["image"]), published.pixels[sample["image_id"]][1:])
        assert sample["geometry"]["channels"] == 2
        assert sample["annotation"] is None or sample["annotation"]["centroids"] == [None, None]


@pytest.mark.parametrize("name", ["it's «ein» store", 'quote " and ; -- and %20', "пример 例"])
def test_odd_folder_names_are_no_obstacle(tmp_path: Path, name: str) -> None:
    known = write_store(tmp_path / name, images=3)
    assert ids(known.url, where="geometry.width > 100") == known.ids[:1]
    assert np.array_equal(load_dataset(known.url)[2]["image"], known.pixels[known.ids[2]])


def test_a_path_object_and_a_list_of_them_load(store: Known) -> None:
    assert ids(Path(store.url)) == store.ids
    assert ids([Path(store.url)]) == store.ids


def test_a_store_in_a_zip_archive_loads(store: Known, tmp_path: Path) -> None:
    import shutil

    archive = shutil.make_archive(str(tmp_path / "store"), "zip", store.url)
    url = f"zip://::{archive}"
    assert ids(url, where="experiment.study = 'plate2'") == PLATE2
    for sample in load_dataset(url, streaming=True):
        assert np.array_equal(sample["image"], store.pixels[sample["image_id"]])


def test_a_published_layout_in_a_zip_archive_loads(published: Known, tmp_path: Path) -> None:
    import shutil

    archive = shutil.make_archive(str(tmp_path / "published"), "zip", published.url)
    samples = list(load_dataset(f"zip://::{archive}"))
    assert [sample["image_id"] for sample in samples] == published.ids
    for sample in samples:
        assert np.array_equal(sample["image"], published.pixels[sample["image_id"]])
        assert (sample["annotation"] is None) == (published.cells[sample["image_id"]] is None)


@pytest.mark.parametrize(
    ("path", "words"),
    [("no/such/folder", "there is nothing here"), ("memory://none/at/all", "there is nothing here"), ([], "at least")],
)
def test_nothing_there_is_said_in_one_sentence(path: Any, words: str) -> None:
    with pytest.raises(ChammiError, match=words):
        load_dataset(path)


def test_a_folder_of_something_else_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(ChammiError, match=r"manifest\.json.*chammi75 build"):
        load_dataset(tmp_path)

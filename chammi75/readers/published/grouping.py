"""The rows of a published table, grouped into images: one row per channel, with the file that a table states for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from chammi75.readers.published.csv_rows import (
    MOST_REPORTED,
    NULL,
    PublishedProblem,
    PublishedRows,
    TextColumn,
    concatenated,
    read_numbers,
    table_name,
    whole_number,
)
from chammi75.readers.published.files import safe_paths

if TYPE_CHECKING:
    import pyarrow as pa

INT32_MAXIMUM = 2**31 - 1
MOST_NAMED = 1000
"""How many images of one kind of problem are named one by one; millions of them would be read at every opening."""
MOST_CHANNELS = 1000
"""CHAMMI-75 has up to 7; a number beyond this is a slip, and would make endless lists of missing channels."""


class GroupedRows:
    """The rows of a table while they become images: sorted by image and channel, one row per channel.

    These stand for the rows that are used, shape (used,): ``source_row`` (position in the table),
    ``channel``, ``group`` (the image that the row belongs to, from 0), ``path``; and ``first_row`` (images,) says where
    an image begins.
    """

    def __init__(self, rows: PublishedRows) -> None:
        self.rows = rows
        self.sha256 = rows.sha256
        self.problems = list(rows.problems)
        self.duplicate_rows = 0
        self._group_rows()

    def _group_rows(self) -> None:
        """Sort the rows by image and channel, drop repeated ones and find channels that have two files."""
        rows = self.rows
        encoded = rows.multi_channel_id.dictionary_encode()
        self.ids = encoded.dictionary
        image = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        channel = self._numbers("imaging.channel", whole_number, 1, MOST_CHANNELS)
        paths, refused = safe_paths(rows.path)
        stated = paths.is_valid().to_numpy(zero_copy_only=False)
        self._report_rows(np.flatnonzero(image < 0), "has no imaging.multi_channel_id; it is left out")
        self._report_rows(np.flatnonzero((image >= 0) & (channel == NULL)), "has no imaging.channel; it is left out")
        self._report_rows(np.flatnonzero(refused), "has a storage.path that leads out of the folder; it is left out")

        used = np.flatnonzero((image >= 0) & (channel != NULL) & ~refused)
        steps = np.diff(image[used]), np.diff(channel[used])
        if not ((steps[0] > 0) | ((steps[0] == 0) & (steps[1] > 0))).all():
            used = used[
                np.lexsort((~stated[used], channel[used], image[used]))
            ]  # of equal rows, those that state a file first
        repeats = np.flatnonzero((np.diff(image[used]) == 0) & (np.diff(channel[used]) == 0)) + 1
        conflicts = self._check_repeats(used, repeats, paths, stated, channel)
        self.duplicate_rows = len(repeats)
        used = np.delete(used, repeats)

        self.source_row = used
        self.channel = channel[used]
        self.path = (
            paths if len(used) == len(paths) and not len(repeats) and (np.diff(used) == 1).all() else paths.take(used)
        )
        self.is_stated = stated[used]
        self.first_row = np.flatnonzero(np.diff(image[used], prepend=-1))
        self.group = np.repeat(np.arange(len(self.first_row)), np.diff(self.first_row, append=len(used)))
        self.image_code = image[used][self.first_row]
        self.left_out = np.isin(self.image_code, image[conflicts])

    def _check_repeats(
        self, used: np.ndarray, repeats: np.ndarray, paths: pa.Array, stated: np.ndarray, channel: np.ndarray
    ) -> np.ndarray:
        """Rows that state another file than the row before for the same channel; other differences are noted."""
        from pyarrow import compute as pc

        if not len(repeats):
            return repeats
        row, before = used[repeats], used[repeats - 1]
        differ = pc.not_equal(paths.take(row), paths.take(before)).fill_null(False).to_numpy(zero_copy_only=False)
        ones, others = row[differ], before[differ]

        def conflict(k: int) -> tuple[str, str]:
            one, other = int(ones[k]), int(others[k])
            return (
                self.rows.multi_channel_id[one].as_py(),
                f"channel {channel[one]} has two files, {paths[other]} (row {self.rows.row[other]}) and"
                f" {paths[one]} (row {self.rows.row[one]}); the image is left out",
            )

        self.report("conflict", len(ones), conflict, "channels have two files; their images are left out")
        for name, column in self.rows.columns.items():
            changed = np.flatnonzero((column.codes[row] != column.codes[before]) & ~differ & stated[row])
            if len(changed):
                first = changed[0]
                self.note(
                    f"{len(changed)} repeated rows differ in {name} from the row that they repeat (first: row"
                    f" {self.rows.row[row[first]]}, as against row {self.rows.row[before[first]]}); that one holds"
                )
        return np.asarray(row[differ])

    def take_paths_from(self, others: list[PublishedRows]) -> None:
        """Give rows that state no file the one that another table states for the same image and channel."""
        import pyarrow as pa
        from pyarrow import compute as pc

        lacking = np.flatnonzero(~self.is_stated)
        if not len(lacking) or not others:
            return
        wanted = self.rows.multi_channel_id.take(self.source_row[lacking])
        keys, paths, hashes = [], [], []
        for other in others:
            values, _ = read_numbers(other, "imaging.channel", whole_number, 1, MOST_CHANNELS)
            channel = values[other.columns["imaging.channel"].codes]
            safe, _ = safe_paths(other.path)
            asked = pc.is_in(other.multi_channel_id, value_set=wanted).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(asked & (channel != NULL) & safe.is_valid().to_numpy(zero_copy_only=False))
            if len(rows):
                keys.append(_key(other.multi_channel_id.take(rows), channel[rows]))
                paths.append(safe.take(rows))
                hashes.append(other.sha256)
        if not keys:
            return
        self.sha256 = hashlib.sha256("".join([self.sha256, *hashes]).encode()).hexdigest()
        pairs = pa.table({"key": pa.concat_arrays(keys), "path": pa.concat_arrays(paths)})
        pairs = pairs.group_by(["key", "path"]).aggregate([]).combine_chunks()
        times = pairs["key"].value_counts()
        ambiguous = times.field("values").filter(pc.greater(times.field("counts"), 1))
        asked_keys = _key(wanted, self.channel[lacking])
        positions = np.flatnonzero(pc.is_in(asked_keys, value_set=ambiguous).to_numpy(zero_copy_only=False))
        self.left_out[self.group[lacking[positions]]] = True

        def conflict(k: int) -> tuple[str, str]:
            channel = self.channel[lacking[positions[k]]]
            reason = f"for channel {channel} the other tables state two files; the image is left out"
            return wanted[int(positions[k])].as_py(), reason

        what = "channels have two files in the other tables; their images are left out"
        self.report("conflict", len(positions), conflict, what)
        pairs = pairs.filter(pc.invert(pc.is_in(pairs["key"], value_set=ambiguous)))
        there = pairs["path"].take(pc.index_in(asked_keys, value_set=pairs["key"]))
        filled = pa.concat_arrays(there.chunks or [pa.array([], self.path.type)])
        mask = np.zeros(len(self.path), bool)
        mask[lacking] = True
        self.path = pc.replace_with_mask(self.path, pa.array(mask), filled)
        self.is_stated = self.path.is_valid().to_numpy(zero_copy_only=False)

    def leave_out_shared_files(self) -> None:
        """Leave out images two of whose channels state one file: one of them must be wrong, and nothing says which."""
        from pyarrow import compute as pc

        for distance in range(1, len(self.path)):
            same_image = self.group[distance:] == self.group[:-distance]
            if not same_image.any():
                return
            same_path = pc.equal(self.path.slice(distance), self.path.slice(0, len(self.path) - distance))
            same = same_image & same_path.fill_null(False).to_numpy(zero_copy_only=False)
            self._leave_out_shared(np.flatnonzero(same), distance)

    def _leave_out_shared(self, rows: np.ndarray, distance: int) -> None:
        self.left_out[self.group[rows]] = True

        def conflict(k: int) -> tuple[str, str]:
            row = int(rows[k])
            numbers = f"{self.channel[row]} and {self.channel[row + distance]}"
            reason = f"channels {numbers} have one file, {self.path[row]}; the image is left out"
            return self.id_of(self.group[row]), reason

        self.report("conflict", len(rows), conflict, "pairs of channels have one file; their images are left out")

    def text(self, name: str) -> TextColumn:
        """A column of text, shape (images,): what the image's channels say together."""
        column = self.rows.columns[name]
        return TextColumn(column.words, self._per_image(name, column.codes[self.source_row], -1))

    def numbers(
        self, name: str, parse: Callable[[str], float | None], minimum: float, maximum: float = INT32_MAXIMUM
    ) -> np.ndarray:
        """A column of numbers, shape (images,)."""
        return self._per_image(name, self._numbers(name, parse, minimum, maximum)[self.source_row], NULL)

    def _numbers(self, name: str, parse: Callable[[str], float | None], minimum: float, maximum: float) -> np.ndarray:
        values, problems = read_numbers(self.rows, name, parse, minimum, maximum)
        self.problems += problems
        return np.asarray(values[self.rows.columns[name].codes])

    def _per_image(self, name: str, values: np.ndarray, null: int) -> np.ndarray:
        """The first value stated for each image; where channels disagree, that is noted or the image left out."""
        if not len(values):
            return values
        first = values[self.first_row]
        if (values == first[self.group]).all():
            return first
        stated = np.where(values != null, np.arange(len(values)), len(values))
        position = np.minimum.reduceat(stated, self.first_row)
        first = np.where(position < len(values), values[np.minimum(position, len(values) - 1)], null)
        disagree = np.logical_or.reduceat((values != null) & (values != first[self.group]), self.first_row)
        images = np.flatnonzero(disagree)
        if not len(images):
            return first
        if name in ("experiment.study", "geometry.width", "geometry.height"):
            self.left_out[images] = True
            kind = "conflict" if name == "experiment.study" else "mismatch"
            reason = f"its channels differ in {name}; the image is left out"
            what = f"images have channels that differ in {name}; they are left out"
            self.report(kind, len(images), lambda k: (self.id_of(images[k]), reason), what)
        else:
            self.note(
                f"the channels of {len(images)} images differ in {name} (first: {self.id_of(images[0])}); the first"
                " channel's is taken"
            )
        return first

    def id_of(self, image: int) -> str:
        """The ``imaging.multi_channel_id`` of an image."""
        return str(self.ids[int(self.image_code[image])])

    def table_of(self, chosen: np.ndarray, *, with_path: bool = False) -> pa.Table:
        """Which rows of the table these are, for people."""
        import pyarrow as pa

        rows = self.source_row[chosen]
        columns = {
            "row": pa.array(self.rows.row[rows]),
            "experiment.study": self.rows.columns["experiment.study"].take(rows).to_arrow(),
            "imaging.multi_channel_id": self.rows.multi_channel_id.take(rows),
            "imaging.channel": pa.array(self.channel[chosen], pa.int32()),
        }
        if with_path:
            columns["storage.path"] = self.path.filter(pa.array(chosen))
        return pa.table(columns)

    def note(self, reason: str) -> None:
        self.problems.append(PublishedProblem("note", table_name(self.rows.url), reason))

    def _report_rows(self, positions: np.ndarray, reason: str) -> None:
        for position in positions[:MOST_REPORTED]:
            path = self.rows.path[int(position)].as_py()
            name = f" ({path!r})" if path else ""
            text = f"row {self.rows.row[position]}{name} {reason}"
            self.problems.append(PublishedProblem("unused_row", table_name(self.rows.url), text))
        if len(positions) > MOST_REPORTED:
            text = f"{len(positions) - MOST_REPORTED} more rows: each {reason}"
            self.problems.append(PublishedProblem("unused_row", table_name(self.rows.url), text))

    def report(self, kind: str, count: int, describe: Callable[[int], tuple[str, str]], others: str) -> None:
        """Take up ``count`` problems of a kind.

        Parameters
        ----------
        kind : str
            The kind.
        count : int
            How many there are.
        describe : callable
            Gives image and reason of the k-th one. Beyond ``MOST_NAMED`` they are counted and not asked for.
        others : str
            What those are that are counted, after "12 more ".
        """
        self.problems += [PublishedProblem(kind, *describe(k)) for k in range(min(count, MOST_NAMED))]
        if count > MOST_NAMED:
            self.problems.append(
                PublishedProblem(kind, table_name(self.rows.url), f"{count - MOST_NAMED} more {others}")
            )


def _key(multi_channel_id: pa.Array, channel: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return concatenated(multi_channel_id, "/", pa.array(channel))

"""Scores as columns: a DataFrame with one row for each metric of each image, and its file, scores.parquet.

`score_table` joins blocks [steps, images]. Text columns are categories, so that a row takes 28 bytes:

    model, layer       of the network; the position control has the layer 'position'
    step, timestep     from 0, and the scheduler's t; missing where there is none, as for the position control
    property, probe    what was probed, and the kind of probe
    control            'none' for the network itself, else the name of a control
    split              'validation' or 'test'
    image, metric
    value              missing where the metric is undefined; rmse in standard deviations of the training labels
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pandas.api.types import union_categoricals

from diffprobe.errors import UserError, one_line
from diffprobe.files import NO_STEP, replacing

SCORES = "scores.parquet"  # in a run folder
FIRST_EDITION = "scores.csv"
TEXT = pa.dictionary(pa.int32(), pa.string())
COLUMNS: dict[str, pa.DataType] = {
    "model": TEXT,
    "layer": TEXT,
    "step": pa.int16(),
    "timestep": pa.float64(),
    "property": TEXT,
    "probe": TEXT,
    "control": TEXT,
    "split": TEXT,
    "image": TEXT,
    "metric": TEXT,
    "value": pa.float64(),
}


@dataclass(frozen=True, slots=True)
class ScoreBlock:
    """One metric of the probes of one layer."""

    model: str
    layer: str
    property: str
    probe: str
    control: str
    split: str
    metric: str
    moments: Sequence[tuple[int, float | None]]  # step and timestep; (NO_STEP, None) where there is no step
    images: Sequence[str]
    values: np.ndarray  # [steps, images]; NaN where the metric is undefined


def score_table(blocks: Sequence[ScoreBlock]) -> pd.DataFrame:
    """The rows of the blocks in their order, by step and image. Raises ValueError for values of another shape."""
    images: dict[str, int] = {}  # name -> place among the categories
    codes = [np.zeros(0, np.int16)]
    for block in blocks:
        if block.values.shape != (len(block.moments), len(block.images)):
            raise ValueError(f"{block.values.shape} values for {len(block.moments)} steps, {len(block.images)} images")
        own = np.array([images.setdefault(image, len(images)) for image in block.images], int)
        codes.append(np.tile(_narrow(own), len(block.moments)))
    moments = [(step, timestep, len(block.images)) for block in blocks for step, timestep in block.moments]
    at, timesteps, widths = np.array(moments, float).reshape(-1, 3).T  # None becomes NaN
    steps = np.repeat(at.astype(np.int16), widths.astype(int))
    columns: dict[str, Any] = {
        "step": pd.arrays.IntegerArray(steps, steps == NO_STEP),
        "timestep": np.repeat(timesteps, widths.astype(int)),
        "image": pd.Categorical.from_codes(np.concatenate(codes), list(images)),  # type: ignore[arg-type]
        "value": np.concatenate([np.zeros(0), *(block.values.ravel() for block in blocks)]),
    }
    sizes = np.array([block.values.size for block in blocks], int)
    for name in COLUMNS:
        if name not in columns:  # a text that each block has one of
            own, categories = pd.factorize(np.array([getattr(block, name) for block in blocks], object))
            columns[name] = pd.Categorical.from_codes(np.repeat(_narrow(own), sizes), categories)  # type: ignore[arg-type]
    return pd.DataFrame({name: columns[name] for name in COLUMNS}, copy=False)


def _narrow(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.int16 if codes.max(initial=0) < 2**15 else np.int32)


def concatenate(tables: Sequence[pd.DataFrame], columns: Mapping[str, pa.DataType] = COLUMNS) -> pd.DataFrame:
    """The rows of several tables with these columns, one table after the other."""
    found: dict[str, Any] = {}
    for name, kind in columns.items():
        parts = [table[name] for table in tables]
        found[name] = union_categoricals(parts) if kind == TEXT else pd.concat(parts, ignore_index=True)
    return pd.DataFrame(found, copy=False)


def select(scores: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows with these values: select(scores, property='depth', split='test')."""
    matches = np.ones(len(scores), bool)
    for name, value in wanted.items():
        matches &= (scores[name] == value).to_numpy(bool, na_value=False)
    return scores[matches]


def row_keys(scores: pd.DataFrame, columns: Iterable[str]) -> np.ndarray:
    """One integer a row, [rows]: the same for rows that are equal in these columns; missing values are equal.

    pandas' groupby does the same in six times the time and twice the memory.
    """
    keys, most = np.zeros(len(scores), np.int64), 1  # keys are below `most`
    for name in columns:
        column = scores[name]
        codes = _codes(column)
        if not isinstance(column.dtype, pd.CategoricalDtype):
            codes = pd.factorize(codes, use_na_sentinel=False)[0]
        number = int(codes.max(initial=0)) + 1
        if most * number > 2**63:  # more combinations than integers, of which few are there
            keys = pd.factorize(keys)[0].astype(np.int64)
            most = int(keys.max(initial=0)) + 1
        keys *= number
        keys += codes
        most *= number
    return keys


@dataclass(frozen=True)
class Groups:
    """Rows in groups, which come in the order of their first rows."""

    order: np.ndarray  # the rows, group by group, [rows]
    starts: np.ndarray  # where each group begins in `order`, [groups]
    sizes: np.ndarray  # how many rows each has, [groups]

    @property
    def first(self) -> np.ndarray:
        """The first row of each group, [groups]."""
        return self.order[self.starts]


def group_rows(scores: pd.DataFrame, columns: Sequence[str]) -> Groups:
    """Groups of the rows that are equal in these columns."""
    changes = np.ones(len(scores), bool)  # rows unlike the one before: few, since rows come block by block
    changes[1:] = False
    for name in columns:
        codes = _codes(scores[name])
        changes[1:] |= codes[1:] != codes[:-1]
    runs = np.flatnonzero(changes)
    numbers = pd.factorize(row_keys(scores[list(columns)].iloc[runs], columns))[0].astype(np.int32)
    numbers = np.repeat(numbers, np.diff(runs, append=len(scores)))
    sizes = np.bincount(numbers)
    return Groups(np.argsort(numbers, kind="stable"), np.cumsum(sizes) - sizes, sizes)


@dataclass(frozen=True)
class ImageScores:
    """One metric of several keys on named images."""

    keys: pd.DataFrame  # one a row
    images: list[str]
    values: np.ndarray  # [keys, images]; NaN where the metric is undefined or has no row
    there: np.ndarray  # [keys, images], whether there is a row


def by_image(scores: pd.DataFrame, columns: Sequence[str]) -> ImageScores:
    """The scores by key (the values of `columns`) and image, both in the order in which they first appear.

    Raises UserError where an image has two scores under one key.
    """
    numbers = pd.factorize(row_keys(scores, columns))[0]
    places, images = pd.factorize(scores["image"])
    shape = numbers.max(initial=-1) + 1, len(images)
    counts = np.bincount(numbers * shape[1] + places, minlength=shape[0] * shape[1]).reshape(shape)
    if (counts > 1).any():
        first = scores[counts[numbers, places] > 1].iloc[0]
        at = "" if pd.isna(first.step) else f", step {first.step + 1}"
        raise UserError(
            f"two {first.metric} scores of image {first.image!r} for {first.property} at {first.layer}{at} "
            f"({first.model}, {first.probe}, control {first.control}): these are rows of several runs of one kind; "
            "compare one of them at a time"
        )
    values = np.full(shape, np.nan)
    values[numbers, places] = scores["value"]
    _, firsts = np.unique(numbers, return_index=True)
    return ImageScores(scores.iloc[firsts][list(columns)], list(images), values, counts > 0)


def over_steps(scores: pd.DataFrame) -> tuple[list[int], list[str], np.ndarray]:
    """Steps in their order, the images of the last step, and the scores [steps, images] of one metric of one probe.

    Raises UserError as `by_image`.
    """
    found = by_image(scores, ["step"])
    steps = found.keys["step"].fillna(NO_STEP).to_numpy(int)
    order = np.argsort(steps)
    last = np.flatnonzero(found.there[order[-1]])
    return steps[order].tolist(), [found.images[place] for place in last], found.values[np.ix_(order, last)]


def write_scores(folder: Path, scores: pd.DataFrame) -> Path:
    """Writes scores.parquet, the whole file or nothing: zstd, texts as dictionaries, every page with a checksum."""
    path = folder / SCORES
    with replacing(path) as temporary:
        pq.write_table(
            pa.Table.from_pandas(scores[list(COLUMNS)], preserve_index=False),
            temporary,
            compression="zstd",
            use_dictionary=[name for name in COLUMNS if name != "value"],  # type: ignore[arg-type]
            use_byte_stream_split=["value"],  # type: ignore[arg-type]
            write_page_checksum=True,
        )
    return path


def read_scores(folder: Path) -> pd.DataFrame:
    """The scores of a run folder: its scores.parquet, or the scores.csv of a run of the first edition.

    Raises UserError where there is neither, or the file is damaged or lacks a column.
    """
    path = scores_file(folder)
    if path is None:
        raise UserError(f"{folder} has no scores: there is no {SCORES} in it.")
    if path.name == FIRST_EDITION:
        return read_csv(path, COLUMNS)
    texts = [name for name, kind in COLUMNS.items() if kind == TEXT]
    with _damage(path), pq.ParquetFile(path, read_dictionary=texts, page_checksum_verification=True) as file:
        _check_columns(path, COLUMNS, file.schema_arrow.names)
        # One column at a time, since Arrow's take more memory
        return pd.DataFrame(
            {name: _column(path, name, kind, file.read([name]).column(0)) for name, kind in COLUMNS.items()}, copy=False
        )


def read_csv(path: Path, columns: Mapping[str, pa.DataType]) -> pd.DataFrame:
    """These columns of a CSV file, in any order there; an empty cell is a missing number, or an empty text.

    Raises UserError where the file is missing, damaged, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}.")
    with _damage(path):
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=columns, null_values=[""]),
        )
        _check_columns(path, columns, table.column_names)
        return pd.DataFrame(
            {name: _column(path, name, kind, table[name]) for name, kind in columns.items()}, copy=False
        )


def scores_file(folder: Path) -> Path | None:
    """The file with the scores of a run folder; None where it has none."""
    return next((path for path in (folder / SCORES, folder / FIRST_EDITION) if path.is_file()), None)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns errors of Arrow, for a file that is no such table, into one line."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged, or no table of this kind: {one_line(error)}.") from error


def _check_columns(path: Path, columns: Iterable[str], names: Sequence[str]) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(names) or 'no columns'}.")


def _column(path: Path, name: str, kind: pa.DataType, found: pa.ChunkedArray) -> pd.Series:
    if kind == TEXT:
        if found.null_count:
            raise UserError(f"{path}: {found.null_count} rows have no {name}.")
        if not pa.types.is_dictionary(found.type):
            found = found.cast(pa.string()).dictionary_encode()
        return found.unify_dictionaries().to_pandas()
    integers: Mapping[Any, Any] = {pa.int16(): pd.Int16Dtype()}
    return found.cast(kind).to_pandas(types_mapper=integers.get)


def _codes(column: pd.Series) -> np.ndarray:
    """Of texts the places among the categories; of numbers the numbers, NaN where they are missing."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy()
    return column.to_numpy(float, na_value=np.nan)

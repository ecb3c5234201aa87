"""Text that stands in a column of a file or data set.

The text is that of JSON lines, of .parquet files and of any Hugging Face data set, which is
streamed up to a limit.

Rows come one after another, so that no more than a batch of them is held here. The libraries that
read the last two are imported when they are needed.
"""

import importlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from farcontext.data.config import Dataset
from farcontext.files import MAX_BYTES, UserError
from farcontext.messages import one_line, printable

COLUMN = "text"  # Files in .jsonl and .parquet must have this column.
BATCH = 256  # So many rows are read at once.


def library(name: str, what: str) -> ModuleType:
    """Import what reads `what`.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(
            f"{what}: expected the package {package} to read it: pip install {package}"
        ) from None


def text_of(value: object, where: str) -> str:
    """Return a row's text.

    It raises UserError if the row has none: a null, a number or bytes.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: expected text, found {type(value).__name__}")
    return value


def text_of_json(line: str, where: str) -> str:
    """Return column "text" of one line of a .jsonl file.

    It raises UserError if the line has no such column, or is no line of JSON.
    """

    def refuse(constant: str) -> None:
        raise UserError(f"{where}: expected JSON, found {constant}")

    try:
        value = json.loads(line, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}, column {error.colno}: expected one JSON object: {error.msg}"
        ) from None
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits.
        raise UserError(
            f"{where}: expected one JSON object that Python can hold: {one_line(error)}"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected one JSON object, found {type(value).__name__}")
    if not isinstance(value.get(COLUMN), str):
        raise UserError(
            f'{where}: columns {", ".join(value) or "none"}: expected a string column "text"'
        )
    try:
        value[COLUMN].encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: text, character {error.start}: expected no lone surrogate"
        ) from None
    return value[COLUMN]


def parquet_rows(path: Path) -> Iterator[tuple[str, object]]:
    """Yield (row's name, value of column "text") of a .parquet file.

    Raises:
        UserError: not such a file, larger than MAX_BYTES, or without that column.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path}: {size} bytes: expected at most {MAX_BYTES} in one file")
    parquet = library("pyarrow.parquet", str(path))
    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if COLUMN not in names:
                raise UserError(
                    f'{path}: columns {", ".join(names) or "none"}: expected a column "{COLUMN}"'
                )
            number = itertools.count(1)
            for batch in table.iter_batches(BATCH, columns=[COLUMN]):
                yield from (
                    (f"{printable(path.stem)}:{next(number)}", value)
                    for value in batch.column(0).to_pylist()
                )
    except (OSError, ValueError) as error:  # pyarrow raises these two kinds of errors.
        raise UserError(
            f"{path}: expected a .parquet file: {' '.join(str(error).split())}"
        ) from None


def dataset_rows(config: Dataset) -> Iterator[tuple[str, object]]:
    """Yield (row's name, value of its column) of a data set.

    Rows come in the data set's own order, and end before either limit is passed.

    The data set is streamed, so what comes behind the limits is not fetched. No code of it is run.

    Raises:
        UserError: no such data set, configuration, split or column, or it cannot be reached.
    """
    where = f"corpus.dataset: {config.path}"
    datasets = library("datasets", where)
    datasets.disable_progress_bars()
    options = {
        "name": config.name,
        "split": config.split,
        "revision": config.revision,
        "streaming": True,
    }
    if config.files:
        options["data_files"] = list(config.files)
    try:
        yield from _within(datasets.load_dataset(config.path, **options), config, where)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # A dozen libraries for hubs, file systems and formats may raise here.
        raise UserError(
            f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from None


def _within(
    rows: Iterable[dict[str, object]], config: Dataset, where: str
) -> Iterator[tuple[str, object]]:
    left = config.characters
    for number, row in enumerate(itertools.islice(rows, config.documents), 1):
        if config.column not in row:
            raise UserError(f"{where}: column = {config.column}: expected one of {', '.join(row)}")
        value = row[config.column]
        left -= len(value) if isinstance(value, str) else 0
        if left < 0:
            return
        yield f"{config.path}:{number}", value

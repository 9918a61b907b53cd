"""What judging leaves: per image, the votes of a target over its draws; as Parquet, without torch."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes of one target on n images.

    index (n,) int64: position in the dataset's split; labels (n,) uint16;
    counts (n, classes) uint16: how often each class won a draw (ties within a draw: lowest class);
    probs (n, classes) float16: mean softmax over the draws made;
    soft (n,) uint16: the class of the largest mean softmax, before it was rounded (ties: lowest class);
    prefix (n, classes) uint16: the counts of the first `prefix_draws` draws, which no stopping rule
    cuts short: all draws of a fixed number (expected accuracy is computed from these);
    settled (n,) uint16: after how many draws the stopping rule had settled the image: more were only
    made to learn of infinitely many draws;
    linf (n,) float32: distance to the original image, in [0, 1];
    claimed (n,) int8: 1 if the attack believed it fooled its source, 0 if not, -1 if there was none;
    shard (n,) int32: which images shared their draws;
    draw_right (shards, prefix_draws) int32: right answers of each shared draw, for the intervals;
    rule: "vote" or "soft" where that rule's stopping ended the draws, "" where all were made;
    winners (n, up to 16) uint16: the class that won each of the first draws, which tell how images that share a
    draw err together (bench/votes/sharing.py); None in a record that does not say.
    """

    index: NDArray[np.int64]
    labels: NDArray[np.uint16]
    counts: NDArray[np.uint16]
    probs: NDArray[np.float16]
    soft: NDArray[np.uint16]
    prefix: NDArray[np.uint16]
    settled: NDArray[np.uint16]
    linf: NDArray[np.float32]
    claimed: NDArray[np.int8]
    shard: NDArray[np.int32]
    draw_right: NDArray[np.int32]
    rule: str = ""
    winners: NDArray[np.uint16] | None = None

    @property
    def drawn(self) -> NDArray[np.int64]:
        """How many draws each image had (n,)."""
        return np.asarray(self.counts.sum(1, dtype=np.int64))

    @property
    def prefix_draws(self) -> int:
        return int(self.draw_right.shape[1])


COLUMNS = ("index", "label", "counts", "probs", "soft", "prefix", "settled", "linf", "claimed", "shard")
LISTS = ("counts", "probs", "prefix", "winners")  # winners may be missing
RULES = ("", "vote", "soft")


def to_parquet(votes: Votes) -> bytes:
    """The votes as one Parquet file, a row an image; `draw_right` and `rule` in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def plain(array: NDArray[Any], kind: pa.DataType) -> pa.Array:
        # Of the buffer itself: pa.array would import pandas, if it is there, to ask whether this is one of its own.
        flat = np.ascontiguousarray(array, kind.to_pandas_dtype()).reshape(-1)
        return pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(flat)])

    def lists(array: NDArray[Any], kind: pa.DataType) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(plain(array, kind), array.shape[1])

    columns = {
        "index": plain(votes.index, pa.int64()),
        "label": plain(votes.labels, pa.uint16()),
        "counts": lists(votes.counts, pa.uint16()),
        "probs": lists(votes.probs, pa.float16()),
        "soft": plain(votes.soft, pa.uint16()),
        "prefix": lists(votes.prefix, pa.uint16()),
        "settled": plain(votes.settled, pa.uint16()),
        "linf": plain(votes.linf, pa.float32()),
        "claimed": plain(votes.claimed, pa.int8()),
        "shard": plain(votes.shard, pa.int32()),
    }
    if votes.winners is not None:
        columns["winners"] = lists(votes.winners, pa.uint16())
    about = {"bench.draw_right": json.dumps(votes.draw_right.tolist()), "bench.rule": votes.rule}
    table = pa.table(columns).replace_schema_metadata(about)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", version="2.6")
    return sink.getvalue()


MOST_ROWS, MOST_CLASSES, MOST_DRAWS = 2_000_000, 1000, 65_535
MOST_VALUES = 100_000_000  # of one column: what a file may make us allocate


def from_parquet(data: bytes) -> Votes:
    """The votes of one Parquet file; ValueError says what is wrong with it.

    The file may come from a stranger: its types and sizes are checked before anything is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        classes = _described(file.schema_arrow, file.metadata.num_rows)
        table = file.read().combine_chunks()
        about = table.schema.metadata or {}
        draw_right = _draw_right(about.get(b"bench.draw_right", b""))
        rule = about.get(b"bench.rule", b"?").decode("ascii", "replace")
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        raise ValueError(f"not a votes file: {error}") from None
    n = table.num_rows

    def values(array: Any) -> NDArray[Any]:
        # Of the buffer itself: to_numpy would import pandas, if it is there.
        dtype = np.dtype(array.type.to_pandas_dtype())
        if not len(array):
            return np.empty(0, dtype)
        return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]

    def column(name: str) -> NDArray[Any]:
        array = table[name].combine_chunks()
        if array.null_count:
            raise ValueError(f"column {name} has gaps")
        return values(array)

    def lists(name: str) -> NDArray[Any]:
        array = table[name].combine_chunks()
        # What flatten() gives where there are no gaps; that imports all of pyarrow.compute.
        flat = array.values.slice(array.offset * classes[name], len(array) * classes[name])
        if array.null_count or flat.null_count or len(flat) != n * classes[name]:
            raise ValueError(f"column {name} has gaps")
        return values(flat).reshape(n, classes[name])

    votes = Votes(
        column("index"), column("label"), lists("counts"), lists("probs"), column("soft"), lists("prefix"),
        column("settled"), column("linf"), column("claimed"), column("shard"), draw_right, rule,
        lists("winners") if "winners" in classes else None,
    )  # fmt: skip
    check(votes)
    return votes


def _described(schema: Any, rows: int) -> dict[str, int]:
    """The length of each column of lists; ValueError unless the file describes votes of a sane size."""
    import pyarrow as pa

    if tuple(schema.names) not in (COLUMNS, (*COLUMNS, "winners")):
        raise ValueError(f"columns {schema.names[:12]}, expected {list(COLUMNS)}")
    if not 0 <= rows <= MOST_ROWS:
        raise ValueError(f"{rows} rows are more than a record can hold")
    kinds = {"index": pa.int64(), "label": pa.uint16(), "counts": pa.uint16(), "probs": pa.float16(),
             "soft": pa.uint16(), "prefix": pa.uint16(), "settled": pa.uint16(), "linf": pa.float32(),
             "claimed": pa.int8(), "shard": pa.int32(), "winners": pa.uint16()}  # fmt: skip
    classes = {}
    for name in schema.names:
        kind, found = kinds[name], schema.field(name).type
        if name in LISTS:
            if not pa.types.is_fixed_size_list(found):
                raise ValueError(f"column {name} is not a list of fixed size")
            if not 1 <= found.list_size <= MOST_CLASSES or found.list_size * rows > MOST_VALUES:
                raise ValueError(f"column {name}: {rows} rows of {found.list_size} are more than a record can hold")
            classes[name], found = found.list_size, found.value_type
        if found != kind:
            raise ValueError(f"column {name} is of {found}, expected {kind}")
    return classes


def _draw_right(text: bytes) -> NDArray[np.int32]:
    """The matrix in the metadata, (shards, prefix_draws)."""
    try:
        found = np.array(json.loads(text))
    except (ValueError, RecursionError):
        raise ValueError("no matrix of the draws' right answers in the metadata") from None
    if found.ndim != 2 or found.dtype != np.int64 or not 1 <= found.shape[1] <= MOST_DRAWS:
        raise ValueError("the draws' right answers are no matrix of whole numbers")
    if found.min() < 0 or found.max() > MOST_ROWS:
        raise ValueError("the draws' right answers are not counts")
    return found.astype(np.int32)


def check(votes: Votes) -> None:
    """ValueError unless the votes are consistent with themselves."""
    n, classes = votes.counts.shape
    if n == 0:
        raise ValueError("no images")
    if votes.probs.shape != (n, classes) or votes.prefix.shape != (n, classes):
        raise ValueError("counts, probs and prefix differ in shape")
    if len(np.unique(votes.index)) != n:
        raise ValueError("an image stands twice in the record")
    if votes.rule not in RULES:
        raise ValueError(f"draws ended by an unknown rule {votes.rule[:20]!r}")
    if votes.soft.max() >= classes or (votes.probs[np.arange(n), votes.soft] < votes.probs.max(1)).any():
        raise ValueError("a soft winner that is not of the largest probability")
    if (votes.settled == 0).any() or (votes.settled > votes.drawn).any():
        raise ValueError("an image settled before its first draw or after its last")
    if votes.labels.max() >= classes:
        raise ValueError(f"label {votes.labels.max()} of {classes} classes")
    if (votes.prefix > votes.counts).any() or (votes.drawn == 0).any():
        raise ValueError("an image without draws, or with more in its prefix than in all")
    if not (np.isfinite(votes.probs).all() and np.isfinite(votes.linf).all()):
        raise ValueError("a probability or distance that is not finite")
    if np.abs(votes.probs.astype(np.float32).sum(1) - 1).max() > 0.02:
        raise ValueError("probabilities that do not sum to one")
    if votes.probs.min() < 0:
        raise ValueError("a probability below 0")
    right = votes.prefix[np.arange(n), votes.labels].sum(dtype=np.int64)
    if right != votes.draw_right.sum():
        raise ValueError("the shared draws' right answers differ from the images'")
    if votes.winners is not None:
        _check_winners(votes, votes.winners)


def _check_winners(votes: Votes, winners: NDArray[np.uint16]) -> None:
    n, classes = votes.counts.shape
    known = winners.shape[1]
    if winners.shape[0] != n or not 1 <= known <= votes.prefix_draws or winners.max() >= classes:
        raise ValueError("the first draws' winners are not those of these images, draws and classes")
    said = np.bincount((np.arange(n)[:, None] * classes + winners).ravel(), minlength=n * classes).reshape(n, classes)
    if (said > votes.prefix).any():
        raise ValueError("the first draws' winners and the counts of the prefix differ")
    names, which = np.unique(votes.shard, return_inverse=True)
    right = np.zeros((len(names), known), np.int64)
    np.add.at(right, which, winners == votes.labels[:, None])
    if len(names) != len(votes.draw_right) or (right != votes.draw_right[:, :known]).any():
        raise ValueError("the first draws' winners and their right answers by shard differ")


def concatenate(parts: list[Votes]) -> Votes:
    """The votes of several shards as one record, in the order given."""
    names = [field.name for field in fields(Votes) if field.name not in ("rule", "winners")]
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    (rule,) = {part.rule for part in parts}
    known = [part.winners for part in parts if part.winners is not None]
    return Votes(**joined, rule=rule, winners=np.concatenate(known) if len(known) == len(parts) else None)

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
    prefix (n, classes) uint16: the counts of the first `prefix_draws` draws, which no stopping rule
    cuts short (expected accuracy is computed from these);
    linf (n,) float32: distance to the original image, in [0, 1];
    claimed (n,) int8: 1 if the attack believed it fooled its source, 0 if not, -1 if there was none;
    shard (n,) int32: which images shared their draws;
    draw_right (shards, prefix_draws) int32: right answers of each shared draw, for the intervals.
    """

    index: NDArray[np.int64]
    labels: NDArray[np.uint16]
    counts: NDArray[np.uint16]
    probs: NDArray[np.float16]
    prefix: NDArray[np.uint16]
    linf: NDArray[np.float32]
    claimed: NDArray[np.int8]
    shard: NDArray[np.int32]
    draw_right: NDArray[np.int32]

    @property
    def drawn(self) -> NDArray[np.int64]:
        """How many draws each image had (n,)."""
        return np.asarray(self.counts.sum(1, dtype=np.int64))

    @property
    def prefix_draws(self) -> int:
        return int(self.draw_right.shape[1])


COLUMNS = ("index", "label", "counts", "probs", "prefix", "linf", "claimed", "shard")


def to_parquet(votes: Votes) -> bytes:
    """The votes as one Parquet file, a row an image; `draw_right` in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def lists(array: NDArray[Any], kind: pa.DataType) -> pa.Array:
        flat = pa.array(np.ascontiguousarray(array).reshape(-1), kind)
        return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])

    columns = {
        "index": pa.array(votes.index, pa.int64()),
        "label": pa.array(votes.labels, pa.uint16()),
        "counts": lists(votes.counts, pa.uint16()),
        "probs": lists(votes.probs, pa.float16()),
        "prefix": lists(votes.prefix, pa.uint16()),
        "linf": pa.array(votes.linf, pa.float32()),
        "claimed": pa.array(votes.claimed, pa.int8()),
        "shard": pa.array(votes.shard, pa.int32()),
    }
    table = pa.table(columns).replace_schema_metadata({"bench.draw_right": json.dumps(votes.draw_right.tolist())})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", version="2.6")
    return sink.getvalue()


def from_parquet(data: bytes) -> Votes:
    """The votes of one Parquet file; ValueError says what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows > 10_000_000:
            raise ValueError(f"{file.metadata.num_rows} rows are more than a record can hold")
        table = file.read().combine_chunks()
        metadata = table.schema.metadata or {}
        draw_right = np.array(json.loads(metadata[b"bench.draw_right"]), np.int32)
    except (pa.ArrowException, KeyError, OSError, json.JSONDecodeError, OverflowError) as error:
        raise ValueError(f"not a votes file: {error}") from None
    if tuple(table.column_names) != COLUMNS:
        raise ValueError(f"columns {table.column_names}, expected {list(COLUMNS)}")
    n = table.num_rows

    def column(name: str, kind: type) -> NDArray[Any]:
        return np.asarray(table[name].combine_chunks().to_numpy(zero_copy_only=False), kind)

    def lists(name: str, kind: type) -> NDArray[Any]:
        array = table[name].combine_chunks()
        if not pa.types.is_fixed_size_list(array.type) or array.null_count:
            raise ValueError(f"column {name} is not a list of fixed size")
        return np.asarray(array.flatten().to_numpy(zero_copy_only=False), kind).reshape(n, array.type.list_size)

    votes = Votes(
        column("index", np.int64), column("label", np.uint16), lists("counts", np.uint16), lists("probs", np.float16),
        lists("prefix", np.uint16), column("linf", np.float32), column("claimed", np.int8), column("shard", np.int32),
        draw_right.reshape(-1, draw_right.shape[-1] if draw_right.size else 0),
    )  # fmt: skip
    check(votes)
    return votes


def check(votes: Votes) -> None:
    """ValueError unless the votes are consistent with themselves."""
    n, classes = votes.counts.shape
    if n == 0:
        raise ValueError("no images")
    if votes.probs.shape != (n, classes) or votes.prefix.shape != (n, classes):
        raise ValueError("counts, probs and prefix differ in shape")
    if len(np.unique(votes.index)) != n:
        raise ValueError("an image stands twice in the record")
    if votes.labels.max() >= classes:
        raise ValueError(f"label {votes.labels.max()} of {classes} classes")
    if (votes.prefix > votes.counts).any() or (votes.drawn == 0).any():
        raise ValueError("an image without draws, or with more in its prefix than in all")
    if not (np.isfinite(votes.probs).all() and np.isfinite(votes.linf).all()):
        raise ValueError("a probability or distance that is not finite")
    if np.abs(votes.probs.astype(np.float32).sum(1) - 1).max() > 0.02:
        raise ValueError("probabilities that do not sum to one")
    right = votes.prefix[np.arange(n), votes.labels].sum(dtype=np.int64)
    if right != votes.draw_right.sum():
        raise ValueError("the shared draws' right answers differ from the images'")


def concatenate(parts: list[Votes]) -> Votes:
    """The votes of several shards as one record, in the order given."""
    names = [field.name for field in fields(Votes)]
    return Votes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

"""What a model costs at a length, in FLOPs, bytes and seconds.

T tokens a row, G key/value heads, H head width, D model width, M MLP width. FLOPs and bytes are by
formula (`formulas`); memory and time are by a model fitted to measured cells. `farcontext cost`
reads the coefficients that notebook 04 fitted and published.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import scipy.optimize

from farcontext import files
from farcontext.files import UserError
from farcontext.measure.formulas import (
    BACKWARD,
    Shape,
    attention_flop,
    flop,
    kv_cache_bytes,
    patterns,
    score_bytes,
    size_of,
    training_flop,
)
from farcontext.nn.config import ModelConfig
from farcontext.nn.local import block_size, is_local
from farcontext.nn.masks import Pattern
from farcontext.schema import validate

STUDY, TABLE = "efficient_attention", "coefficients"
BACKENDS = ("auto", "sdpa", "reference")
# A model of this shape is built, without memory; its tensors and sums have to stay numbers.
MOST = {"layers": 10**4, "width": 10**8, "vocab_size": 10**9, "mlp_width": 10**9}
MOST |= {"batch": 10**12, "length": 10**8, "rate": 1e30}
# An activation and a number in the cache have so many bytes.
ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 2, "int4": 2}
# A weight has so many; those of quantised ones are without the scales of their blocks.
WEIGHT = ELEMENT | {"int8": 1.0, "int4": 0.5}
# The checkout that this package stands in, where it was installed from one.
CHECKOUT = Path(__file__).resolve().parents[3]

Kind = Literal["training", "inference"]


def shape(name: str, **values: object) -> ModelConfig:
    """Return a model's shape; `kind` is decoder unless given.

    Raises:
        UserError: one line for the first value that does not fit, `name` in front.
    """
    width = values.get("width")
    # With SwiGLU, M is usually 8/3 of D.
    usual = math.ceil(width / 12) * 32 if isinstance(width, int) else None
    given = {key: value for key, value in values.items() if value is not None}
    return validate(
        ModelConfig, {"kind": "decoder", "mlp_width": usual, "max_length": 2**40} | given, name
    )


# ----------------------------------------------------------------------------------- the cost model


@dataclass(frozen=True)
class Work:
    """A training step, or a forward pass that scores rows' last tokens."""

    kind: Kind
    length: int
    rows: int = 1
    backend: str = "auto"
    element: int = 4  # An activation has so many bytes.
    # So has a weight at inference. In training, weights, gradients and moments are fp32.
    stored: float = 4.0

    def scored(self, config: ModelConfig | Shape) -> int:
        """Return the number of positions whose logits are computed."""
        # An encoder in training scores the 30 % masked ones, a decoder all.
        tokens = self.rows * self.length
        return (
            self.rows
            if self.kind == "inference"
            else round(tokens * (0.3 if config.kind == "encoder" else 1.0))
        )


def _paths(config: ModelConfig | Shape, work: Work) -> list[tuple[int, Pattern, str]]:
    """Return (layers, pattern, path) for each pattern that some layers have.

    A path is reference, fused (nothing built), masked (a dense mask) or local.
    """
    found = []
    for n, pattern in patterns(config):
        if work.backend == "reference":
            path = "reference"
        elif not pattern.banded:
            path = "fused"
        else:
            local = work.backend == "auto" and is_local(pattern, work.length, work.length)
            path = "local" if local else "masked"
        found.append((n, pattern, path))
    return found


def memory_terms(config: ModelConfig | Shape, work: Work) -> dict[str, float]:
    """Return the bytes of each thing that memory holds.

    Formulas give them; the fit finds how often each is held at the peak. weights: with gradient and
    two moments in training · layers: 7D + 3GH + 4M numbers a token and layer that backward needs;
    layer: those of one · scores: T × S of every head of each layer that materialises them; score:
    of one · masks: dense masks · local: copies of neighbouring keys and values · logits.
    """
    T, tokens, b, D = work.length, work.rows * work.length, work.element, config.width
    parts = 4 if config.mlp in ("geglu", "swiglu") else 2
    kept = config.layers if work.kind == "training" else 0
    GH = (config.kv_heads or config.heads) * config.head_width
    activations = b * tokens * (7 * D + 3 * GH + parts * config.mlp_width)
    terms = {
        "constant": float(1 << 20),
        "weights": (16.0 if work.kind == "training" else work.stored) * size_of(config).parameters,
        "layers": kept * activations,
        "layer": activations,
        "scores": 0.0,
        "score": 0.0,
        "masks": 0.0,
        "local": 0.0,
        "logits": b * work.scored(config) * config.vocab_size,
    }
    for n, pattern, path in _paths(config, work):
        times = n if work.kind == "training" else 1
        match path:
            case "reference":
                terms["scores"] += (
                    times * score_bytes(work.rows, config.heads, T, T, b) if kept else 0.0
                )
                # The offsets are int64.
                terms["score"] = score_bytes(work.rows, config.heads, T, T, b) + 8 * T * T
            case "masked":
                terms["masks"] += times * b * T * T
            case "local":
                c = block_size(pattern)
                span = c + pattern.before + pattern.after
                terms["local"] += times * b * tokens * (2 * GH * span / c + span)
    return terms


def time_terms(config: ModelConfig | Shape, work: Work) -> dict[str, float]:
    """Return the FLOPs and bytes that take time, by part."""
    training = work.kind == "training"
    forward = flop(config, work.length, work.rows, work.scored(config))
    memory = memory_terms(config, work)
    # Pairs count as attention computes them.
    pairs = {"fused": 0.0, "masked": 0.0, "reference": 0.0, "local": 0.0}
    for n, pattern, path in _paths(config, work):
        T = work.length
        match path:
            case "fused":
                pairs[path] += n * pattern.count(T, T)
            case "masked" | "reference":
                pairs[path] += n * T * T
            case "local":
                pairs[path] += n * T * (block_size(pattern) + pattern.before + pattern.after)
    attention = {
        path: (1 + BACKWARD * training)
        * attention_flop(work.rows, config.heads, config.head_width, n)
        for path, n in pairs.items()
    }
    products = (3 if training else 1) * (forward["layers"] + forward["output"])
    return attention | {
        "constant": 1.0,
        "products": products,
        "passes": config.layers * memory["layer"],  # This memory is passed over.
        "weights": memory["weights"],
    }


def fit(terms: Sequence[Mapping[str, float]], measured: Sequence[float]) -> dict[str, float]:
    """Return a coefficient ≥ 0 for each term, by least squares."""
    names = list(terms[0])
    y = np.asarray(measured, float)
    # The residuals are relative errors.
    X = np.array([[row[name] for name in names] for row in terms]) / y[:, None]
    scale = np.maximum(X.max(0), 1e-300)
    found, _ = scipy.optimize.nnls(X / scale, np.ones(len(y)))
    return {name: float(value) for name, value in zip(names, found / scale, strict=True)}


def predict(coefficients: Mapping[str, float], terms: Mapping[str, float]) -> float:
    """Return Σ coefficient · term."""
    return float(sum(coefficients[name] * value for name, value in terms.items()))


# Keys are ("memory" | "time", kind of work), then term.
Coefficients = Mapping[tuple[str, str], Mapping[str, float]]


def as_frame(coefficients: Coefficients) -> pd.DataFrame:
    """Return coefficients as the table to publish: one row a term."""
    rows = [
        (q, kind, term, f"{x:.4g}")
        for (q, kind), of in coefficients.items()
        for term, x in of.items()
    ]
    return pd.DataFrame(rows, columns=["quantity", "kind", "term", "value"])


def from_frame(frame: pd.DataFrame) -> Coefficients:
    """Return what `as_frame` wrote."""
    grouped = frame.groupby(["quantity", "kind"])
    return {
        key: dict(zip(part["term"], part["value"].astype(float), strict=True))
        for key, part in grouped
    }


def published() -> Coefficients | None:
    """Return the published coefficients, None where there are none.

    They are those of the project around the working folder, else those of the checkout that this
    package was installed from.
    """
    try:
        places = [files.project(), CHECKOUT]
    except UserError:
        places = [CHECKOUT]
    for place in places:
        path = place / "results" / "laptop" / STUDY / "tables" / f"{STUDY}.{TABLE}.csv"
        if path.is_file():
            return from_frame(pd.read_csv(path))
    return None


def lengths_of(text: str) -> list[int]:
    """Read lengths such as 1024,8192, or raise UserError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,15}", part) and int(part) for part in parts):
        raise UserError(f"lengths = {text:.60}: expected tokens, as 1024,8192, or a folder")
    return [int(part) for part in parts]


def estimate(
    config: ModelConfig | Shape,
    lengths: Sequence[int],
    coefficients: Coefficients | None,
    *,
    rows: int = 1,
    backend: str = "auto",
    dtype: str = "float32",
    rate: float | None = None,
) -> pd.DataFrame:
    """Return the computed cost of training and inference at each length.

    Nothing is measured here. Columns: length, training_bytes, training_seconds (a step),
    inference_bytes, inference_seconds (a forward pass that scores the last tokens), kv_cache_bytes,
    training_flop, attention_share (of forward FLOPs). Without coefficients, bytes are unknown, and
    seconds too unless `rate` is given.

    Args:
        dtype: that of weights, activations and cache; of weights alone if it is int8 or int4.
        rate: FLOP/s reached; time is then FLOPs by this, without the fitted machine. Without it,
            time is that of the machine and fp32 that were measured, and unknown (NaN) in bf16.
            Memory in bf16 counts activations at two bytes and was not measured.

    Raises:
        UserError: an unknown backend or dtype, or a number below 1.
    """
    if backend not in BACKENDS or dtype not in ELEMENT:
        raise UserError(
            f"backend = {backend}, dtype = {dtype}: expected {', '.join(BACKENDS)}; "
            f"{', '.join(ELEMENT)}"
        )
    for name, value in [
        ("batch", rows),
        ("rate", 1 if rate is None else rate),
        *(("length", length) for length in lengths),
        *((key, getattr(config, key)) for key in ("layers", "width", "vocab_size", "mlp_width")),
    ]:
        if not 1 <= value <= MOST.get(name, math.inf):
            most = f" and at most {MOST[name]:g}" if name in MOST else ""
            raise UserError(f"{name} = {value}: expected at least 1{most}")
    found = []
    for length in lengths:
        forward = flop(config, length, rows)
        row: dict[str, float] = {"length": length}
        for kind in ("training", "inference"):
            work = Work(kind, length, rows, backend, ELEMENT[dtype], WEIGHT[dtype])
            row[f"{kind}_bytes"] = math.nan
            if coefficients:
                terms = memory_terms(config, work)
                row[f"{kind}_bytes"] = predict(coefficients["memory", kind], terms)
            done = flop(config, length, rows, work.scored(config))
            total = training_flop(done) if kind == "training" else sum(done.values())
            if rate is not None:
                row[f"{kind}_seconds"] = total / rate
            elif dtype == "float32" and coefficients:
                row[f"{kind}_seconds"] = predict(
                    coefficients["time", kind], time_terms(config, work)
                )
            else:
                row[f"{kind}_seconds"] = math.nan
            row[f"{kind}_flop"] = total
        row["kv_cache_bytes"] = (
            kv_cache_bytes(config, length, rows, ELEMENT[dtype]) if config.kind == "decoder" else 0
        )
        found.append(row | {"attention_share": forward["attention"] / sum(forward.values())})
    return pd.DataFrame(found)


def lines(config: ModelConfig | Shape, found: pd.DataFrame, dtype: str = "float32") -> list[str]:
    """Return what `estimate` found as a table for a terminal."""
    count = size_of(config).parameters
    held = WEIGHT[dtype] * count / 2**30
    said = [
        f"computed, not measured: {count / 1e6:,.1f} M parameters, {held:,.2f} GiB in {dtype}",
        f"{'tokens':>9}  {'training step':>22}  {'forward pass':>22}  {'KV cache':>10}  attention",
    ]
    for _, row in found.iterrows():
        both = (
            (row[f"{kind}_bytes"] / 2**30, row[f"{kind}_seconds"])
            for kind in ("training", "inference")
        )
        kinds = (f"{gib:8.2f} GiB {seconds:8.3g} s" for gib, seconds in both)
        cache, share = row["kv_cache_bytes"] / 2**30, row["attention_share"]
        said.append(
            f"{row['length']:9.0f}  {'  '.join(kinds)}  {cache:6.2f} GiB  {share:.0%} of FLOPs"
        )
    if found["inference_bytes"].isna().all():
        said.append("– : not known here; the fitted cost model stands in farcontext's checkout")
    return [line.replace("nan s", " –  ").replace("nan GiB", "  –    ") for line in said]


def as_json(config: ModelConfig | Shape, found: pd.DataFrame, dtype: str = "float32") -> str:
    """Return what `estimate` found as one JSON object; unknown is null."""
    rows = json.loads(found.to_json(orient="records", double_precision=15))
    count = size_of(config).parameters
    held = {"parameters": count, "weights": dtype, "weights_bytes": int(WEIGHT[dtype] * count)}
    return json.dumps({"computed": True, **held, "lengths": rows})

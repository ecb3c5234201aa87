"""The verbs that read a checkpoint's configuration alone: one thin command each.

Neither weights nor the libraries that run them are loaded, so they answer at once at any size.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from farcontext.app.verbs import app, console


@app.command()
def rope(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint's folder, or a config.json; nothing else is read.")
    ],
    *,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object, with vectors of cos and sin.")
    ] = False,
) -> None:
    """Show what config.json alone says of a checkpoint's positions.

    Wavelengths stand beside the trained length; then comes what transformers 4 and 5, vLLM,
    llama.cpp and sglang make of the same file, with the keys and flags that make them agree.

    Example: farcontext rope build/smollm2
    """
    from farcontext.checkpoints.unloaded import view

    found = view.view(checkpoint)
    console.print(view.as_json(found) if json else "\n".join(view.shown(found)))


def _shape_of(checkpoint: Path, lengths: str, dtype: str | None) -> tuple[str, Any, str, str]:
    """Return a checkpoint's name and shape, lengths and dtype.

    They are those to ask for.
    """
    from farcontext.checkpoints import hub
    from farcontext.checkpoints.unloaded import counts, parameters, places

    path = places.config_file(checkpoint)
    config = places.text_config(path)
    counts.expect_counts(path, config)
    shape = parameters.shape_of(config)
    if shape is None:
        # Its import takes seconds, and most families do not need it.
        from farcontext.checkpoints.unloaded import built

        shape = built.shape_of(path, config)
    usual = ",".join(map(str, parameters.usual_lengths(config)))
    dtype = dtype or parameters.stored_dtype(config)
    return hub.name_of(path.parent), shape, lengths or usual, dtype


@app.command()
def cost(
    what: Annotated[
        list[str],
        typer.Argument(help="Tokens, as 1024,8192; or a checkpoint's folder, then tokens if any."),
    ],
    *,
    kind: Annotated[str, typer.Option(help="encoder or decoder.")] = "decoder",
    layers: Annotated[int, typer.Option(help="L.")] = 12,
    width: Annotated[int, typer.Option(help="D.")] = 768,
    heads: Annotated[int | None, typer.Option(help="N; default: D / 64, at least 1.")] = None,
    kv_heads: Annotated[int | None, typer.Option(help="G; default: N.")] = None,
    mlp_width: Annotated[int | None, typer.Option(help="M; default: 8/3 of D.")] = None,
    vocabulary: Annotated[int, typer.Option(help="V.")] = 32_768,
    tied: Annotated[
        bool, typer.Option("--tied/--untied", help="One matrix reads tokens and scores them.")
    ] = True,
    window: Annotated[
        int | None,
        typer.Option(help="Local layers see |i - j| < this; each third is global."),
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, sdpa or reference (plain).")] = "auto",
    batch: Annotated[int, typer.Option(help="Rows.")] = 1,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16; int8, int4: of weights, the rest bfloat16."),
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(help="TFLOP/s reached: time for such a machine, not ours.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the table.")
    ] = False,
) -> None:
    """Compute what a model would cost.

    The answer has memory and time of a training step and a forward pass, and the KV cache. Of a
    checkpoint, only config.json is read; the options of a shape do not apply to it.

    Example: farcontext cost build/smollm2 8192
    """
    from farcontext.checkpoints.unloaded.places import names_a_checkpoint
    from farcontext.measure import cost

    if names_a_checkpoint(what[0]):
        name, config, lengths, dtype = _shape_of(Path(what[0]), ",".join(what[1:]), dtype)
    else:
        heads = max(1, width // 64) if heads is None else heads
        shape = {"layers": layers, "width": width, "heads": heads, "kv_heads": kv_heads}
        shape |= {"mlp_width": mlp_width, "vocab_size": vocabulary, "tied": tied}
        local = {"window": window, "global_every": 3} if window is not None else {}
        name, config = None, cost.shape("cost", kind=kind, **shape, **local)
        lengths, dtype = ",".join(what), dtype or "float32"
    options = {"rows": batch, "backend": backend, "dtype": dtype}
    options |= {"rate": None if tflops is None else tflops * 1e12}
    found = cost.estimate(config, cost.lengths_of(lengths), cost.published(), **options)
    if json:
        console.print(cost.as_json(config, found, dtype))
    else:
        table = cost.lines(config, found, dtype)
        console.print("\n".join([name, *table] if name else table))

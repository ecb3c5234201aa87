"""The verbs on a checkpoint or a text: one thin command each.

The commands that need torch import it late.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from farcontext import files
from farcontext.app.signals import exit_on_signals
from farcontext.messages import printable

HELP = (
    "Longer contexts, measured: a checkpoint's, your own text's, and the pipeline behind every "
    "published number."
)
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP
)


class Terminal(Console):
    """A console that prints texts and names which may hold anything."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `rich` does, but no text steers the terminal."""
        super().print(*(printable(x) if isinstance(x, str) else x for x in objects), **options)


console = Terminal(highlight=False, markup=False, soft_wrap=True)
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--model", help="A Hugging Face folder or GGUF file; default: the embedded SmolLM2."
    ),
]
Context = Annotated[int, typer.Option(help="Tokens that the model reads and writes together.")]


def _list_schemes(wanted: bool) -> None:
    if wanted:
        from farcontext.checkpoints.extension import edit

        console.print("\n".join(edit.scheme_lines()))
        raise typer.Exit


@app.command()
def extend(
    checkpoint: Annotated[
        Path, typer.Argument(help="A Hugging Face folder, a GGUF file, or a run of farcontext.")
    ],
    out: Annotated[
        Path, typer.Argument(help="The folder to write; transformers loads it unchanged.")
    ],
    *,
    scheme: Annotated[str, typer.Option(help="How to change RoPE; see --list.")] = "yarn",
    factor: Annotated[float, typer.Option(help="Wanted length / the window now.")] = 4.0,
    theta: Annotated[
        float | None, typer.Option(help="With --scheme abf: the new base; default: a rule.")
    ] = None,
    trained_length: Annotated[
        int | None, typer.Option(help="Tokens, where config.json's window is not what was trained.")
    ] = None,
    tune: Annotated[
        Path | None, typer.Option(help="Fine-tune on this .txt or .md file, or folder of them.")
    ] = None,
    steps: Annotated[int, typer.Option(help="With --tune: steps of AdamW.")] = 50,
    rows: Annotated[int, typer.Option(help="With --tune: rows in a step.")] = 1,
    length: Annotated[int, typer.Option(help="With --tune: tokens in a row.")] = 1024,
    lr: Annotated[float, typer.Option(help="With --tune: learning rate of AdamW.")] = 2e-5,
    dtype: Annotated[
        str, typer.Option(help="With --tune: float32 or bfloat16 arithmetic.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="With --tune: of the rows drawn.")] = 0,
    measure: Annotated[
        int | None,
        typer.Option(
            help="Tokens of the before/after table; 0: none, as above 1,000 M parameters."
        ),
    ] = None,
    _list: Annotated[
        bool, typer.Option("--list", callback=_list_schemes, is_eager=True, help="Explain all.")
    ] = False,
) -> None:
    """Write a checkpoint whose context is extended.

    It may be fine-tuned for a short time. The command shows what that changed.
    """
    from farcontext.checkpoints.extension import edit

    exit_on_signals()
    request, table = edit.Request(scheme, factor, theta, trained_length), []
    if tune is None and edit.is_enough(checkpoint, measure):
        report = edit.edit(checkpoint, out, request)
    else:
        from farcontext.checkpoints import extend, loss_change

        tuning = extend.Tuning(tune, steps, length, rows, lr, dtype, seed) if tune else None
        report = extend.extend(checkpoint, out, **vars(request), tuning=tuning, measure=measure)
        table = loss_change.table(report)
    console.print("\n".join([*table, *edit.lines(report, out)]))


@app.command()
def probe(
    checkpoint: Annotated[
        Path, typer.Argument(help="A Hugging Face folder, a GGUF file, or a run of farcontext.")
    ],
    *,
    text: Annotated[
        Path | None, typer.Option(help="Prose to read: a .txt or .md file, or a folder of them.")
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Tokens, ascending, as 256,512,1024; default: 256 to 2,048.")
    ] = "",
    precision: Annotated[
        float, typer.Option(help="Half-width of the 95 % interval at which sampling stops.")
    ] = 0.07,
    max_contexts: Annotated[int, typer.Option(help="Most contexts a length.")] = 100,
    dtype: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto: the faster here.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads; default: torch's choice.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of report.html; default: probe-NAME.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the table.")
    ] = False,
    rope_only: Annotated[
        bool, typer.Option("--rope-only", help="Only check how the model rotates; no text.")
    ] = False,
) -> None:
    """Measure how long a checkpoint's context really is.

    One HTML report has the effective length with its interval, and the RoPE check.
    """
    from farcontext.checkpoints import probe as probing
    from farcontext.checkpoints import probe_summary, report, rope_check
    from farcontext.checkpoints.load import load

    options = probing.Options(probing.lengths_of(lengths), precision, max_contexts)
    probing.use_threads(threads)
    loaded = load(checkpoint, dtype=probing.usual_dtype() if dtype == "auto" else dtype)
    if rope_only:
        console.print("\n".join(rope_check.lines(rope_check.check(loaded))))
        return
    folder = out or Path(f"probe-{loaded.name}")
    found = report.write(probing.measure(loaded, options, text), folder)
    console.print(
        report.as_json(found)
        if json
        else "\n".join([*probe_summary.lines(found), f"{folder / 'report.html'}"])
    )


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
    """
    from farcontext.checkpoints.unloaded import view

    found = view.view(checkpoint)
    console.print(view.as_json(found) if json else "\n".join(view.shown(found)))


def _shape_of(checkpoint: Path, lengths: str, dtype: str | None) -> tuple[str, Any, str, str]:
    """Return a checkpoint's name and shape, the lengths and the dtype to ask for."""
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
    return places.named(path.parent), shape, lengths or usual, dtype


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


def _checkpoint(given: Path | None) -> Path:
    """Return the folder of a checkpoint: the embedded one where none is given."""
    return given or files.project() / "build" / "smollm2"


@app.command()
def ask(
    file: Annotated[Path, typer.Argument(help="A text: .txt, .md, or any UTF-8.")],
    question: Annotated[str, typer.Argument(help="About it.")],
    *,
    model: Checkpoint = None,
    context: Context = 1024,
    tokens: Annotated[
        int, typer.Option(min=1, help="Of the answer, at most; it ends with its line.")
    ] = 40,
) -> None:
    """Answer a question about your own text.

    The command also says where in the text the evidence should stand.
    """
    from farcontext.checkpoints import ask as asking
    from farcontext.checkpoints.load import load

    loaded = load(_checkpoint(model))
    prompt = asking.prompt_of(loaded, file, question, context, tokens)
    answer = ""
    for part in asking.write(loaded, prompt.ids, tokens, one_line=True):
        answer += part
        console.print(part, end="")
    console.print("\n".join(["", *asking.report(loaded, file, prompt, answer)]))


@app.command("continue")
def go_on(
    file: Annotated[Path, typer.Argument(help="A text: .txt, .md, or any UTF-8.")],
    *,
    model: Checkpoint = None,
    context: Context = 1024,
    tokens: Annotated[int, typer.Option(min=1, help="To write.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draws; the same text for the same seed.")] = 0,
) -> None:
    """Go on writing your own text from its end.

    A small model keeps the tone for a line or two.
    """
    from farcontext.checkpoints import ask as asking
    from farcontext.checkpoints.load import load

    loaded = load(_checkpoint(model))
    for part in asking.write(
        loaded, asking.end_of(loaded, file, context, tokens), tokens, seed=seed
    ):
        console.print(part, end="")
    console.print()

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


def _checkpoint(given: Path | None) -> Path:
    """Return a checkpoint's folder, by default the embedded one's."""
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

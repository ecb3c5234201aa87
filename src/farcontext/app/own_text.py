"""The verbs on somebody's own text: ask, continue and audit.

They import torch late.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from farcontext import files
from farcontext.app.verbs import app, console

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--model", help="A Hugging Face folder or GGUF file; default: the embedded SmolLM2."
    ),
]
Context = Annotated[int, typer.Option(help="Tokens that the model reads and writes together.")]


Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto: a GPU if there is one.")]


def _loaded(given: Path | None, device: str) -> Any:
    """Load a checkpoint: the embedded one where none is given."""
    from farcontext.checkpoints.probing import machine

    path = given or files.project() / "build" / "smollm2"
    on_cpu = machine.device_of(device).type == "cpu"
    return machine.loaded(path, device, "float32" if on_cpu else "auto")


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
    device: Device = "auto",
) -> None:
    """Answer a question about your own text.

    The text is read whole, where it fits, and by the passages that the question ranks highest.
    The command also says where in the text the evidence should stand.

    Example: farcontext ask my-text.md "Who has the key?"
    """
    from farcontext.checkpoints import ask as asking

    loaded = _loaded(model, device)
    for number, prompt in enumerate(asking.prompts_of(loaded, file, question, context, tokens)):
        answer = ""
        console.print(f"{chr(10) * bool(number)}from {prompt.why}: ", end="")
        for part in asking.write(loaded, prompt.ids, tokens, one_line=True):
            answer += part
            console.print(part if answer.strip() else "", end="")
        console.print("" if answer.strip() else asking.NO_ANSWER)
        console.print("\n".join(asking.report(loaded, file, prompt, answer)))


@app.command("continue")
def go_on(
    file: Annotated[Path, typer.Argument(help="A text: .txt, .md, or any UTF-8.")],
    *,
    model: Checkpoint = None,
    context: Context = 1024,
    tokens: Annotated[int, typer.Option(min=1, help="To write.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draws; the same text for the same seed.")] = 0,
    device: Device = "auto",
) -> None:
    """Go on writing your own text from its end.

    A small model keeps the tone for a line or two.

    Example: farcontext continue my-text.md
    """
    from farcontext.checkpoints import ask as asking

    loaded = _loaded(model, device)
    for part in asking.write(
        loaded, asking.end_of(loaded, file, context, tokens), tokens, seed=seed
    ):
        console.print(part, end="")
    console.print()


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(help="A text: .txt, .md, or any UTF-8.")],
    *,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="A Hugging Face folder; default: a fresh small model."),
    ] = None,
    counts: Annotated[
        str, typer.Option(help="Canaries are shown so often; 0 is a control.")
    ] = "0,1,4,16",
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning.")] = 3,
    length: Annotated[int, typer.Option(help="Tokens in a row.")] = 256,
    lr: Annotated[float | None, typer.Option(help="Default: 1e-4, of a fresh model 3e-3.")] = None,
    seed: Annotated[int, typer.Option(help="Of canaries and order.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of report.html; default: audit-NAME.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the table.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Find out what a model would give away after fine-tuning on your text.

    Secrets of known counts are planted in a copy of the text; a model is fine-tuned on it in memory
    and asked for them. One HTML page has exposure, extraction, utility and what to do.

    Example: farcontext audit my-text.md --model my-checkpoint
    """
    from farcontext.checkpoints import audit as auditing

    known = counts.replace(",", "").isdecimal() and all(counts.split(","))
    if not known:
        raise files.UserError(f"counts = {counts!r:.60}: expected whole numbers, as 0,1,4,16")
    if lr is not None and not lr > 0:
        raise files.UserError(f"lr = {lr}: expected a number above 0")
    numbers = tuple(int(count) for count in counts.split(","))
    rate = lr or (1e-4 if model else 3e-3)
    options = auditing.Options(numbers, length=length, epochs=epochs, lr=rate, seed=seed)
    loaded = _loaded(model, device) if model else auditing.fresh(seed)
    found = auditing.audit(loaded, file, options)
    auditing.write(found, out or Path(f"audit-{file.stem}"))
    console.print(auditing.as_json(found) if json else "\n".join(auditing.table(found)))

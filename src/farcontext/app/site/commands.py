"""The command line as pages: what `--help` says of each verb."""

import re
import sys
from pathlib import Path
from typing import Any

import typer

from farcontext.app.site.layout import Page, render

GROUP = "Commands"
TAKES = {Path: "path", str: "text", int: "integer", float: "number"}


def _default(option: Any) -> str:
    """Return an option's default where it says something."""
    value = option.default
    quiet = value is None or value is False or value == "" or callable(value)
    return "" if quiet or option.required or "Sentinel" in type(value).__name__ else str(value)


def _parameter(one: Any) -> dict[str, str]:
    """Return one row of a command's table."""
    argument = one.param_type_name == "argument"
    names = one.name if argument else ", ".join([*one.opts, *one.secondary_opts])
    takes = "" if argument or one.is_flag else TAKES.get(one.type_descriptor.annotation, "")
    return {
        "names": names,
        "takes": takes,
        "help": getattr(one, "help", "") or "",
        "default": _default(one),
        "required": "required" if one.required else "",
    }


def _told(name: str, command: Any) -> dict[str, Any]:
    """Return what a command's page shows."""
    context = command.make_context(f"farcontext {name}", [], resilient_parsing=True)
    rows = [one for one in command.get_params(context) if one.name != "help"]
    said = re.split(r"\n\s*\n", (command.help or "").strip())
    example = [text.removeprefix("Example: ") for text in said if text.startswith("Example: ")]
    return {
        "name": name,
        "usage": " ".join([context.command_path, *command.collect_usage_pieces(context)]),
        "said": [" ".join(x.split()) for x in said if not x.startswith("Example: ")],
        "example": example[0] if example else "",
        "arguments": [_parameter(x) for x in rows if x.param_type_name == "argument"],
        "options": [_parameter(x) for x in rows if x.param_type_name != "argument"],
    }


def url(name: str) -> str:
    """Return a verb's page."""
    return f"commands/{name}.html"


def pages(app: typer.Typer) -> list[Page]:
    """Return a page for each verb.

    The first lists them by the module in which they stand.
    """
    group = typer.main.get_command(app)
    told = [_told(name, command) for name, command in group.commands.items()]
    rooms: dict[str, list[dict[str, Any]]] = {}
    for one in told:
        module = sys.modules[group.commands[one["name"]].callback.__module__]
        rooms.setdefault((module.__doc__ or "").partition("\n")[0].partition(":")[0], []).append(
            one
        )
    listed = "commands/index.html"
    about = " ".join((group.help or "").split())
    body = render("commands", listed, rooms=rooms, about=about, of=url)
    first = Page(listed, GROUP, GROUP, body, "All commands")
    return [
        first,
        *(
            Page(
                url(one["name"]),
                f"farcontext {one['name']}",
                GROUP,
                render("command", url(one["name"]), **one),
                one["name"],
            )
            for one in told
        ),
    ]

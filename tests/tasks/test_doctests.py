"""The examples that the tasks' docstrings draw are what the tasks make."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

from farcontext import tasks

MODULES = [module.name for module in pkgutil.iter_modules(tasks.__path__)]
DRAWN = {"needles", "lookup", "tracking", "common_words", "copying", "counting", "associative"}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"farcontext.tasks.{name}"))
    assert failed == 0
    assert tried > 3 or name not in DRAWN


def test_tasks_import_without_torch() -> None:
    imports = ", ".join(f"farcontext.tasks.{name}" for name in MODULES)
    program = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""The words of the code: no variable that does not say what it holds, none of the names that were given up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("husai_core", "services", "worker", "api", "husai", "migrations", "benchmarks", "tools", "tests")
SAYS_NOTHING = {"found", "one", "made", "given", "told", "own", "part", "many"}
GIVEN_UP = re.compile(
    r"\b(KindError|doorbells?|nursery|Chores?|Rough|from client|import client|train_imported|saes\.formats"
    r"|husai_core\.stability\.panels|worker\.(child|loop|lab|host)|services\.(flow|trees|wake)"
    r"|api\.(shell|visible|views|planning))\b"
)


def python_files() -> list[Path]:
    """All but this one, which lists the names that were given up."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if path != Path(__file__)]


def stored_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every variable and parameter with its line. A field of a class is none: documents have its name."""
    fields = {
        id(statement.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@pytest.mark.parametrize("package", PACKAGES)
def test_variables_say_what_they_hold(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, line in stored_names(ast.parse(path.read_text()))
        if name in SAYS_NOTHING
    ]
    assert wrong == []


def test_names_that_were_given_up_do_not_come_back() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number} {match.group()}"
        for path in python_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := GIVEN_UP.search(line))
    ]
    assert wrong == []


def test_files_fit_on_a_few_screens() -> None:
    long = [str(path.relative_to(ROOT)) for path in python_files() if len(path.read_text().splitlines()) > 400]
    assert long == []

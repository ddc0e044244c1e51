"""The code version: changes with what computes, not with how it is written down."""

import importlib
import linecache
import sys
import textwrap

import pytest

from sot_pipeline.defs import code_version as module
from sot_pipeline.defs.code_version import code_version


@pytest.fixture
def version_of(tmp_path, monkeypatch):
    """Version of `asset` in a throw-away package made of the given modules."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # sources change within a second
    monkeypatch.setattr(module, "PACKAGE", "toy_package")
    monkeypatch.setattr(module, "IGNORED", ("toy_package.ignored",))

    def version(**sources: str) -> str:
        folder = tmp_path / "toy_package"
        folder.mkdir(exist_ok=True)
        for name, source in {"__init__": "", **sources}.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(source))
        for name in [name for name in sys.modules if name.startswith("toy_package")]:
            del sys.modules[name]
        module._module.cache_clear()
        module._file_of.cache_clear()
        importlib.invalidate_caches()
        linecache.clearcache()
        return code_version(importlib.import_module("toy_package.main").asset)

    return version


MAIN = """
    def asset(x):
        from toy_package.maths import double
        return double(x)
"""
MATHS = "def double(x):\n    return 2 * x\n"


def test_comments_docstrings_and_layout_do_not_count(version_of):
    plain = version_of(main=MAIN, maths=MATHS)
    commented = version_of(
        main=MAIN,
        maths='"""Arithmetic."""\n\n\ndef double(x):\n    """Twice x."""\n    # why\n    return (2*x)\n',
    )
    assert plain == commented


SHOWN = """
    def listed(**words):
        return lambda function: function

    @listed(group="inputs", kinds={"polars"}, settings=("texts",))
    def asset(x):
        return x
"""


def test_where_the_ui_lists_an_asset_and_under_which_icons_does_not_count(version_of):
    before = version_of(main=SHOWN)
    assert before == version_of(main=SHOWN.replace('"inputs"', '"other"').replace("polars", "jax"))
    assert before != version_of(main=SHOWN.replace('("texts",)', '("embedding",)'))


def test_a_change_behind_an_import_counts(version_of):
    before = version_of(main=MAIN, maths=MATHS)
    assert before != version_of(main=MAIN, maths=MATHS.replace("2", "3"))


def test_a_change_two_imports_away_counts(version_of):
    maths = "from toy_package.constants import TWO\n\ndef double(x):\n    return TWO * x\n"
    before = version_of(main=MAIN, maths=maths, constants="TWO = 2\n")
    assert before != version_of(main=MAIN, maths=maths, constants="TWO = 2.5\n")


def test_a_helper_and_a_constant_beside_the_function_count(version_of):
    main = """
    FACTOR = 2

    def helper(x):
        return x * FACTOR

    def asset(x):
        return helper(x)
    """
    before = version_of(main=main)
    assert before != version_of(main=main.replace("x * FACTOR", "x + FACTOR"))
    assert before != version_of(main=main.replace("FACTOR = 2", "FACTOR = 4"))


def test_a_neighbour_that_is_not_used_does_not_count(version_of):
    main = MAIN + "\n    def other(x):\n        return x\n"
    assert version_of(main=MAIN, maths=MATHS) == version_of(main=main, maths=MATHS)


def test_ignored_modules_do_not_count(version_of):
    main = MAIN.replace("return", "from toy_package.ignored import log\n        return")
    before = version_of(main=main, maths=MATHS, ignored="def log():\n    pass\n")
    assert before == version_of(main=main, maths=MATHS, ignored="def log():\n    print()\n")


def test_a_class_with_its_methods_and_what_they_use_counts(version_of):
    main = """
    def twice(x):
        return 2 * x

    class Rows:
        def of(self, x):
            return twice(x)

    def asset(x):
        return Rows().of(x)
    """
    before = version_of(main=main)
    assert before != version_of(main=main.replace("return twice(x)", "return -twice(x)"))
    assert before != version_of(main=main.replace("2 * x", "3 * x"))


def test_a_function_behind_a_cache_counts(version_of):
    main = """
    from functools import cache

    @cache
    def twice(x):
        return 2 * x

    def asset(x):
        return twice(x)
    """
    assert version_of(main=main) != version_of(main=main.replace("2 * x", "3 * x"))

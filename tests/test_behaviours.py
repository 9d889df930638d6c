"""docs/behaviours.md is up to date, and the tool that writes it reads tests rightly."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "behaviours.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("behaviours", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_up_to_date(tool):
    assert tool.TABLE.read_text() == tool.table(), "run: python tools/behaviours.py"


def test_all_statements_have_a_title(tool):
    numbers = [number for section in tool.titles().values() for number in section]
    assert numbers == [*"ABCDEFGHIJKL", *(f"B{n}" for n in range(1, 54))]


SOURCE = '''
# B1

@decorator  # B2
def test_one():  # B3, B4
    pass  # B5: why
    # Bounded, and A word; B6 in passing
    "# B7"

class Scenario:
    holds = ("B8", "A")

    async def test_in_it(self):
        """Doc."""
        # J

@scenario(holds=["B9"])
def two(): ...

three = Scenario(holds=("B10",))
'''


def test_who_holds_what(tool):
    assert sorted(tool.holders(SOURCE)) == sorted(
        [
            ("B1", ""),
            ("B2", "test_one"),
            ("B3", "test_one"),
            ("B4", "test_one"),
            ("B5", "test_one"),
            ("B8", "Scenario"),
            ("A", "Scenario"),
            ("J", "Scenario::test_in_it"),
            ("B9", "two"),
            ("B10", ""),
        ]
    )


def test_a_number_that_does_not_exist_is_an_error(tool, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text("def test_x():  # B54\n    pass\n")
    with pytest.raises(ValueError, match=r"tests/test_x\.py: there is no statement B54"):
        tool.table(tmp_path)

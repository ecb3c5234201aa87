"""The measurement itself finds known allocations.

Nothing is carried from cell to cell, and what goes wrong is one line.
"""

import pytest
from observe import refuses

from farcontext.studies.efficient_attention import cells as memory_cells
from farcontext.studies.efficient_attention.cells import MIB

SHAPE = {"heads": 1, "head_width": 16}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    """All cells of this file through one server: its start is what takes time."""
    config = memory_cells._config(
        "decoder", 32, 2, layers=2, vocabulary=512, length=256
    ).model_dump(mode="json")
    model = {"config": config, "rows": 2, "length": 256, "backend": "auto"}
    attend = {"what": "attend", "length": 1024, "seed": 0} | SHAPE
    cells = {
        "large": {"what": "known", "size": 96 * MIB},
        "small": {"what": "known", "size": 8 * MIB},
        "plain": attend | {"backend": "reference"},
        "online": attend | {"backend": "online"},
        "fused": attend | {"backend": "sdpa"},
        "training": {"what": "training"} | model,
        "inference": {"what": "inference"} | model,
        "plain model": {"what": "inference"} | model | {"backend": "reference"},
        "layer": {"what": "layer", "length": 1024, "width": 16, "heads": 1},
        "ceilings": {"what": "ceilings", "size": 128, "tries": 1},
    }
    return dict(zip(cells, memory_cells.measure(list(cells.values())), strict=True))


def test_a_known_allocation_is_measured_whole_and_not_seen_by_the_next_cell(found: dict) -> None:
    for name, size in (("large", 96), ("small", 8)):
        assert found[name]["bytes"] / MIB == pytest.approx(size, abs=1.5), name


def test_written_out_scores_are_seen(found: dict) -> None:
    """1,024 × 1,024 scores in fp32 are 4 MiB, and more than two of them are held at once."""
    assert found["plain"]["bytes"] > 8 * MIB
    assert found["fused"]["bytes"] < 4 * MIB
    assert found["online"]["bytes"] < found["plain"]["bytes"] / 2


def test_a_models_cells_hold_what_they_must(found: dict) -> None:
    """Logits of 512 tokens over 512 words are 1 MiB.

    They are held more than once in training; weights too.
    """
    assert found["training"]["bytes"] > found["inference"]["bytes"] + 2 * MIB
    assert found["plain model"]["bytes"] > found["inference"]["bytes"] + MIB
    assert found["layer"]["bytes"] > 1024 * 16 * 4 * 8
    assert all(cell["seconds"] > 0 for cell in found.values() if "seconds" in cell)
    assert (
        found["ceilings"]["flop_per_second"] > 1e6 and found["ceilings"]["bytes_per_second"] > 1e6
    )


def test_what_fails_in_a_cell_is_one_line_that_names_it() -> None:
    with refuses(
        '"backend": "flash", "length": 64, "seed": 0, "heads": 1, "head_width": 16}: '
        "ValueError: backend"
    ):
        memory_cells.measure(
            [{"what": "attend", "backend": "flash", "length": 64, "seed": 0} | SHAPE]
        )


def test_a_backend_differs_from_the_reference_by_rounding_and_another_function_by_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = {"backend": "online", "length": 64, "seed": 0} | SHAPE
    assert 0 < memory_cells.difference(**cell)["value"] < 1e-4
    true = memory_cells.attention.attend

    def unscaled(q, *others):
        return true(2 * q if others[-1] == "online" else q, *others)

    monkeypatch.setattr(memory_cells.attention, "attend", unscaled)
    assert memory_cells.difference(**cell)["value"] > 1e-2

"""Service descriptions become readable text.

Families that share paragraphs stay together and stay small.
"""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from observe import refuses

from farcontext import files
from farcontext.data import manuals
from farcontext.data.manuals import newer_manuals, read_manuals
from farcontext.files import UserError

WORDS = [a + b + c for a in "bcdfgk" for b in "aeiou" for c in "lrnst"]


def prose(seed: int, words: int = 300) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def service(name: str, seed: int, signs: str | None = None, words: int = 300) -> dict:
    return {
        "metadata": {
            "serviceFullName": f"Service {name}",
            "endpointPrefix": name,
            "signingName": signs or name,
        },
        "documentation": f"<p>{prose(seed, words)}</p>",
        "operations": {},
        "shapes": {},
    }


def write_services(folder: Path, services: dict[str, dict]) -> Path:
    for name, described in services.items():
        data = gzip.compress(json.dumps(described).encode())
        files.write_atomic(folder / name / "service-2.json.gz", data)
    return folder


def test_manual_reads_as_text() -> None:
    shapes = {
        "In": {
            "type": "structure",
            "required": ["Id"],
            "members": {"Id": {"shape": "S"}, "N": {"shape": "L"}},
        },
        "S": {"type": "string", "documentation": "<p>A &lt;name&gt;.</p>"},
        "L": {"type": "list", "member": {"shape": "S"}},
        "Kind": {"type": "string", "enum": ["A", "B"]},
        "Bare": {"type": "integer"},
    }
    operations = {
        "Get": {
            "input": {"shape": "In"},
            "errors": [{"shape": "E1"}],
            "documentation": "<p>Gets <b>it</b></p>",
        }
    }
    metadata = {"serviceFullName": "Toy"}
    about = "<p>One.</p> <ul> <li> <p>two</p> </li> <li>three</li></ul>"
    text = manuals.manual(
        {"metadata": metadata, "documentation": about, "operations": operations, "shapes": shapes}
    )
    assert text == (
        "Toy\n\nOne.\n- two\n- three\n\nOPERATIONS\n\nGet\nGets it\nRequest:\n"
        "Id (string, required): A <name>.\n"
        "N (list of S)\nErrors: E1.\n\nDATA TYPES\n\nS (string)\nA <name>.\n\n"
        "Kind (string)\nOne of: A, B.\n"
    )


def test_services_are_one_family_by_first_word_or_signing_name() -> None:
    services = {
        "maker": service("maker", 0),
        "maker-edge": service("maker-edge", 1, "edge"),
        "rim": service("rim", 2, "edge"),  # linked to maker only through maker-edge
        "alone": service("alone", 3),
    }
    family = manuals.families_of(services)
    assert family["maker"] == family["maker-edge"] == family["rim"] != family["alone"]


def test_whole_families_are_kept_within_the_budget(tmp_path: Path) -> None:
    services = {
        f"s{i}{end}/2020-01-01": service(f"s{i}", 10 * i + len(end))
        for i in range(60)
        for end in ("", "-x")
    }
    services["s0/2019-01-01"] = service("old", 999)
    write_services(tmp_path, services)
    budget = 101 * len(manuals.manual(services["s1/2020-01-01"]))
    found = list(read_manuals(tmp_path, budget))
    assert 0.95 * budget < sum(len(one.text) for one in found) <= budget
    assert set(Counter(one.family for one in found).values()) == {2}
    # the newest version only
    assert not any("old" in one.title for one in read_manuals(tmp_path, 10 * budget))


def test_a_family_above_its_share_of_the_budget_is_left_out(tmp_path: Path) -> None:
    services = {f"s{i}/1": service(f"s{i}", i) for i in range(30)}
    services |= {
        "big/1": service("big", 50, words=800),
        "twin/1": service("twin", 51),
        "twin-b/1": service("twin", 52),
    }
    write_services(tmp_path, services)
    small, big = (len(manuals.manual(services[name])) for name in ("s1/1", "big/1"))
    # a family may hold one and a half small manuals
    budget = int(1.5 * small / manuals.FAMILY_SHARE)
    kept = {one.family for one in read_manuals(tmp_path, budget)}
    assert not {"big", "twin"} & kept and len(kept) > 20
    assert {"big", "twin"} <= {
        one.family for one in read_manuals(tmp_path, int(1.5 * big / manuals.FAMILY_SHARE))
    }


def test_the_order_is_that_of_the_content(tmp_path: Path) -> None:
    services = [service("toy", i, str(i)) for i in range(40)]
    write_services(tmp_path / "a", {f"n{i}/1": one for i, one in enumerate(services)})
    write_services(tmp_path / "b", {f"m{40 - i}/1": one for i, one in enumerate(services)})
    texts = [[one.text for one in read_manuals(tmp_path / folder, 10**6)] for folder in "ab"]
    assert texts[0] == texts[1] and len(texts[0]) == 40


def test_a_description_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_services(tmp_path, {"a/1": service("a", 1)})
    monkeypatch.setattr(manuals, "MAX_BYTES", 100)
    with pytest.raises(
        UserError, match=r"service-2\.json\.gz: expected at most 100 bytes when unpacked"
    ):
        list(read_manuals(tmp_path, 10**6))


def test_a_service_is_newer_if_its_first_version_is(tmp_path: Path) -> None:
    """Its last version is the one that is read."""
    versions = {"old/2014-01-01": 1, "old/2025-02-03": 2, "new/2024-11-05": 3, "new/2025-01-01": 4}
    described = {name: service(name[:3], seed) for name, seed in versions.items()}
    folder = write_services(tmp_path, described)
    assert newer_manuals(folder, "2024-11") == [manuals.manual(described["new/2025-01-01"])]
    assert len(newer_manuals(folder, "2014")) == 2
    with refuses("expected services since 2025-06 (dvc repro sources)"):
        newer_manuals(folder, "2025-06")

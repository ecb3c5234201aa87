"""Reactions by rule: the known sources hold, by hand and by counting."""

from collections import Counter

import numpy as np
import pytest

from farcontext.studies.interpretability import reactions
from farcontext.studies.interpretability.reactions import ATOM, RULES, parsed, reaction, spelled

MADE = reactions.reactions(3, 2)


def test_an_esterification_by_hand() -> None:
    """Acid C-C(=O)-O and alcohol O-C: the acid's hydroxyl leaves, the alcohol's oxygen stays."""
    made = reaction(np.random.default_rng(0), "esterification", "CC", "CN")
    text = "".join(made.tokens)
    before, after = made.tokens.index(">>"), len(made.tokens)
    assert set(made.source) == {
        n for n in range(before + 1, after) if ATOM.fullmatch(made.tokens[n])
    }
    dot = made.tokens.index(".")
    acid_first = "=" in made.tokens[:dot]
    acid = range(dot) if acid_first else range(dot + 1, before)
    oxygens = {made.source[n] for n in made.source if made.tokens[n] == "O"}
    assert len(oxygens & {*acid}) == 1 and len(oxygens - {*acid}) == 1
    assert text.count("O") == 5 and len(made.source) == 7


@pytest.mark.parametrize("smiles", [*reactions.AROMATIC, *reactions.CHAINS, "*C(=O)O"])
def test_spelling_from_any_atom_is_the_same_molecule(smiles: str) -> None:
    molecule = parsed(smiles)
    for start in range(len(molecule.atoms)):
        again = parsed("".join(token for token, _ in spelled(molecule, start)))
        order = [atom for _, atom in spelled(molecule, start) if atom is not None]
        assert [molecule.atoms[atom] for atom in order] == list(again.atoms)
        moved = {tuple(sorted((order[i], order[j]))): sign for (i, j), sign in again.bonds.items()}
        assert moved == {tuple(sorted(pair)): sign for pair, sign in molecule.bonds.items()}


def test_fragments_have_no_two_atoms_that_look_alike() -> None:
    """Colours refined by neighbours until they settle: each atom ends with one of its own."""
    for smiles in (*reactions.AROMATIC, *reactions.CHAINS):
        molecule = parsed(smiles)
        colors: list[object] = [(n == 0, atom) for n, atom in enumerate(molecule.atoms)]
        for _ in molecule.atoms:
            colors = [
                hash(
                    (
                        colors[n],
                        *sorted(
                            hash((colors[m], molecule.bond(n, m))) for m in molecule.neighbours(n)
                        ),
                    )
                )
                for n in range(len(colors))
            ]
        assert len(set(colors)) == len(colors), smiles


def test_every_atom_has_one_source_of_its_own_kind() -> None:
    assert {made.rule for made in MADE} == {*RULES}
    assert len(MADE) == len(RULES) * len(reactions.AROMATIC) * 2
    for made in MADE:
        assert len(set(made.source.values())) == len(made.source)
        assert all(made.tokens[a] == made.tokens[b] for a, b in made.source.items())
        lost = Counter(made.tokens[: made.tokens.index(">>")]) - Counter(
            made.tokens[made.tokens.index(">>") :]
        )
        assert {"O", "Br", "Cl", "B"} & {*lost}


def test_products_are_no_copies_of_what_they_are_made_of() -> None:
    """A copier from left to right points right in fewer than half of the cases."""
    right = total = 0
    for made in MADE:
        atoms = [n for n in range(made.tokens.index(">>")) if ATOM.fullmatch(made.tokens[n])]
        right += sum(atoms[k] == source for k, source in enumerate(made.source.values()))
        total += len(made.source)
    assert right / total < 0.5

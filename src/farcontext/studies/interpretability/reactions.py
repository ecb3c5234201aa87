r"""Reactions by rule, whose product's atoms are known one by one.

    left molecule . right molecule >> product
    O=C(O) c1cccc(Cl)c1 . NCC(C)CC >> CCC(C)C NC(=O) c1cccc(Cl)c1        amide coupling
    \____/ \__________/   \______/
    core    fragment      core and fragment

A class has two cores, each with a place for a fragment, marked `*`. The cores keep some atoms, lose
the others, and are bound to each other. Molecules are graphs: a rule joins and cuts them, and each
is spelled from an atom of its own, so that a product is no copy of what it was made of. Fragments
have no two atoms that a symmetry exchanges, so the source of every atom is one atom. This is the
skeleton of a reaction, without reagents, yields or stereochemistry.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|[BCNOSFIcnos]|[()=#.]|>>|\d")
ATOM = re.compile(r"\[[^\]]+\]|Br|Cl|[BCNOSFIcnos]")


class Rule(NamedTuple):
    """A class of reactions.

    It says what stands left and right, and which atoms stay. A core's atom 0 is the fragment's
    first one. keeps: the core's other atoms that stay. binds: the atom that is bound to the other
    core.
    """

    left: str
    left_keeps: tuple[int, ...]
    left_binds: int
    right: str
    right_keeps: tuple[int, ...]
    right_binds: int
    right_aromatic: bool  # The right fragment is an aromatic one, else it begins with CH2.


RULES = {
    "amide coupling": Rule("*C(=O)O", (1, 2), 1, "*N", (1,), 1, False),
    "esterification": Rule("*C(=O)O", (1, 2), 1, "*O", (1,), 1, False),
    "Suzuki coupling": Rule("*Br", (), 0, "*B(O)O", (), 0, True),
    "sulfonamide": Rule("*S(=O)(=O)Cl", (1, 2, 3), 1, "*N", (1,), 1, False),
}
# The first atom is the one that a core binds to.
AROMATIC = (
    "c1cccc(Cl)c1",
    "c1cccc(OC)c1",
    "c1cc(F)ccc1C",
    "c1cncc(C)c1",
    "c1ccc2occc2c1",
    "c1cccc(C#N)c1",
    "c1sccc1C",
    "c1cccnc1OC",
)
CHAINS = (
    "CCOC",
    "CC(C)CC",
    "CCc1cccc(F)c1",
    "Cc1cccc(Cl)c1",
    "CC1CCCO1",
    "CCCc1cccs1",
    "Cc1cccnc1",
    "CCC#N",
)


@dataclass(frozen=True)
class Molecule:
    """Atoms as SMILES spells them, and bonds.

    A bond (i < j) has its sign, "" if it is plain.
    """

    atoms: tuple[str, ...]
    bonds: dict[tuple[int, int], str]

    def neighbours(self, atom: int) -> list[int]:
        """Return the atoms that an atom is bound to."""
        return sorted({end for bond in self.bonds if atom in bond for end in bond} - {atom})

    def bond(self, one: int, other: int) -> str:
        """Return the sign of a bond."""
        return self.bonds[min(one, other), max(one, other)]


class Reaction(NamedTuple):
    """A reaction in tokens, and the sources of its product's atoms.

    source: place of a product's atom → place of the reactants' atom that it is.
    """

    tokens: tuple[str, ...]
    source: dict[int, int]
    rule: str
    fragments: tuple[str, str]


# ------------------------------------------------------------------------------- reading, spelling


def parsed(smiles: str) -> Molecule:
    """Return the molecule that SMILES spells; `*` is an atom too."""
    atoms: list[str] = []
    bonds: dict[tuple[int, int], str] = {}
    stack: list[int] = []
    rings: dict[str, int] = {}
    last, sign = -1, ""
    for token in re.findall(rf"{TOKEN.pattern}|\*", smiles):
        if token == "(":
            stack.append(last)
        elif token == ")":
            last = stack.pop()
        elif token in "=#":
            sign = token
        elif token.isdigit():
            if token in rings:
                bonds[rings.pop(token), last] = sign
            else:
                rings[token] = last
        else:
            atoms.append(token)
            if last >= 0:
                bonds[last, len(atoms) - 1] = sign
            last, sign = len(atoms) - 1, ""
    return Molecule(tuple(atoms), bonds)


def spelled(molecule: Molecule, start: int) -> list[tuple[str, int | None]]:
    """Return a molecule's SMILES from an atom on.

    Each token has its atom. Of several neighbours the one with the fewest atoms behind it comes
    first, in brackets.
    """
    children: dict[int, list[int]] = {}
    closures: dict[int, list[tuple[int, int]]] = {n: [] for n in range(len(molecule.atoms))}
    rings: set[tuple[int, int]] = set()

    def walk(atom: int, parent: int) -> None:
        children[atom] = []
        for other in molecule.neighbours(atom):
            if other not in children:
                children[atom].append(other)
                walk(other, atom)
            elif other != parent and (pair := (min(atom, other), max(atom, other))) not in rings:
                rings.add(pair)
                for end in (other, atom):
                    closures[end].append((len(rings), other if end == atom else atom))

    def size(atom: int) -> int:
        return 1 + sum(map(size, children[atom]))

    def spell(atom: int) -> list[tuple[str, int | None]]:
        said: list[tuple[str, int | None]] = [(molecule.atoms[atom], atom)]
        said += [(str(number), None) for number, _ in closures[atom]]
        branches = sorted(children[atom], key=size)
        for number, child in enumerate(branches):
            sign = [(s, None) for s in molecule.bond(atom, child)]
            tail = [*sign, *spell(child)]
            last = number == len(branches) - 1
            said += tail if last else [("(", None), *tail, (")", None)]
        return said

    walk(start, -1)
    return spell(start)


# -------------------------------------------------------------------------------- making reactions


def joined(core: Molecule, fragment: Molecule) -> Molecule:
    """Return a core with a fragment in its place.

    The core's other atoms come last.
    """
    shift = len(fragment.atoms) - 1
    bonds = dict(fragment.bonds)
    for (i, j), sign in core.bonds.items():
        bonds[0 if i == 0 else i + shift, j + shift] = sign
    return Molecule((*fragment.atoms, *core.atoms[1:]), bonds)


def reaction(rng: np.random.Generator, rule: str, left: str, right: str) -> Reaction:
    """Return one reaction of two fragments.

    Args:
        rng: draws which molecule stands first, and the atom that each is spelled from.
        rule: a name in RULES.
        left, right: fragments as SMILES, from the atom that is bound.
    """
    made, parts, kept = RULES[rule], [], []
    for core, keeps, fragment in (
        (made.left, made.left_keeps, left),
        (made.right, made.right_keeps, right),
    ):
        first = parsed(fragment)
        parts.append(joined(parsed(core), first))
        size = len(first.atoms)
        kept.append([*range(size), *(size - 1 + atom for atom in keeps)])
    ends = [
        0 if binds == 0 else len(parsed(fragment).atoms) - 1 + binds
        for binds, fragment in ((made.left_binds, left), (made.right_binds, right))
    ]
    product, names = _bound(parts, kept, ends)
    tokens: list[str] = []
    places: dict[tuple[int, int], int] = {}
    for number in rng.permutation(2).tolist():
        tokens += ["."] if tokens else []
        for token, atom in spelled(parts[number], _start(rng, parts[number])):
            if atom is not None:
                places[number, atom] = len(tokens)
            tokens.append(token)
    tokens.append(">>")
    source = {}
    for token, atom in spelled(product, _start(rng, product)):
        if atom is not None:
            source[len(tokens)] = places[names[atom]]
        tokens.append(token)
    return Reaction(tuple(tokens), source, rule, (left, right))


def _bound(
    parts: Sequence[Molecule], kept: Sequence[Sequence[int]], ends: Sequence[int]
) -> tuple[Molecule, list[tuple[int, int]]]:
    """Return the product, and which (part, atom) each atom is."""
    names = [(number, atom) for number, atoms in enumerate(kept) for atom in atoms]
    at = {name: place for place, name in enumerate(names)}
    bonds = {
        tuple(sorted((at[number, i], at[number, j]))): sign
        for number, part in enumerate(parts)
        for (i, j), sign in part.bonds.items()
        if (number, i) in at and (number, j) in at
    }
    bonds[at[0, ends[0]], at[1, ends[1]]] = ""
    return Molecule(tuple(parts[number].atoms[atom] for number, atom in names), bonds), names


def _start(rng: np.random.Generator, molecule: Molecule) -> int:
    """Return one of a molecule's ends, which SMILES mostly begin with."""
    ends = [n for n in range(len(molecule.atoms)) if len(molecule.neighbours(n)) == 1]
    return int(ends[rng.integers(len(ends))])


def reactions(seed: int, pairs: int) -> list[Reaction]:
    """Return reactions of every class.

    Each left fragment has so many right ones.
    """
    rng, made = np.random.default_rng(seed), []
    for rule, cores in RULES.items():
        others = AROMATIC if cores.right_aromatic else CHAINS
        for left in AROMATIC:
            chosen = [right for right in others if right != left]
            for number in rng.permutation(len(chosen))[:pairs]:
                made.append(reaction(rng, rule, left, chosen[number]))
    return made

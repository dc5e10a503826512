# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults of a run, all drawn before it begins: the same seed gives the same faults, targets and pauses."""
from dataclasses import dataclass
from random import Random

PAUSE = (1.0, 12.0)         # seconds between the begins of two faults
FIRST = 2.0


@dataclass(frozen=True)
class Planned:
    """One fault to come."""
    at: float               # seconds since the run's begin
    kind: str               # a name of kinds.KINDS
    words: tuple            # what is broken, in the kind's own words
    lasts: float            # seconds until it is mended

    def __str__(self):
        return f"{self.at:7.1f} s  {self.kind:<18} {' '.join(self.words):<50} for {self.lasts:.1f} s".rstrip()


def plan(seed, seconds, kinds):
    """[Planned] of a run, by time. `kinds`: those that may happen (kinds.Kind).

    Drawn as from a deck of cards, in which a kind is as often as it says: a short run has many kinds too. What
    must not overlap (Kind.alone) keeps its distance; a card that can't be played yet stays on top of the deck.
    """
    random = Random(seed)
    deck, planned, free = [], [], {}
    at = FIRST
    while at < seconds:
        if len(deck) < len(kinds):
            fresh = [kind for kind in kinds for _ in range(kind.often)]
            random.shuffle(fresh)
            deck += fresh
        place = next((place for place, kind in enumerate(deck) if free.get(kind.alone, 0) <= at), None)
        if place is not None:
            kind = deck.pop(place)
            lasts = round(random.uniform(*kind.lasts), 1)
            planned.append(Planned(round(at, 1), kind.name, tuple(kind.draw(random)), lasts))
            if kind.alone:
                free[kind.alone] = at + lasts + kind.rest
        at += random.uniform(*PAUSE)
    return planned

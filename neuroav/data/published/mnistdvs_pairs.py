"""Which sound of N-TIDIGITS is beside which picture of MNIST-DVS, and in which split.

Both protocols of ``mnistdvs_ntidigits``, on lists of recordings alone: nothing is read here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neuroav.data.formats import ntidigits
from neuroav.data.plans import Item, Source
from neuroav.data.protocols import deal_groups
from neuroav.errors import DataError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # of the pictures; assumed
VALIDATION = 0.1  # of the training speech; assumed
FEWEST_SPEAKERS = 10  # with fewer, a speaker is too much to give up for validation
MAPPING = "scmrl"  # of digits to classes: z is 0, o is left out

Pool = dict[str, dict[int, list[Source]]]  # split -> digit -> recordings of one modality


def speaker(utterance_id: str) -> str:
    """Gender and the letters of the speaker's code: 'man-ae' of 'man-ae-a-1'.

    Codes of N-TIDIGITS are letters; a number behind them (the stand-in's) tells takes apart.
    """
    said = ntidigits.parse_id(utterance_id)
    letters = re.match(r"[A-Za-z]*", said.speaker)
    return f"{said.gender}-{(letters.group() if letters else '') or said.speaker}"


def spoken(listing: ntidigits.Listing, file: str) -> Pool:
    """Isolated digits but "oh", by N-TIDIGITS' own splits."""
    found: Pool = {}
    for split in ntidigits.SPLITS:
        of_digit: dict[int, list[Source]] = defaultdict(list)
        for name in listing.single_digits(split):
            label = ntidigits.parse_id(name).label(MAPPING)
            if label is not None:
                of_digit[label].append(Source(file, f"{split}/{name}"))
        found[split] = of_digit
        if lacking := [d for d in range(10) if d not in of_digit]:
            raise DataError(f"{file}: the {split} part has no isolated digit {lacking[0]}")
    return found


def clean_sounds(said: Pool, seed: int, notes: list[str]) -> Pool:
    """Speech dealt to three splits; says in ``notes`` what is not speaker-disjoint."""
    tested = {speaker(_id(s)) for of_digit in said["test"].values() for s in of_digit}
    kept = {d: [s for s in all_ if speaker(_id(s)) not in tested]
            for d, all_ in said["train"].items()}  # fmt: skip
    if lost := sum(map(len, said["train"].values())) - sum(map(len, kept.values())):
        notes.append(f"{lost} training sounds of speakers who are also tested are left out")
    voices = [speaker(_id(s)) for of_digit in kept.values() for s in of_digit]
    shares = {"train": 1 - VALIDATION, "val": VALIDATION}
    if len(set(voices)) >= FEWEST_SPEAKERS:
        split_of = deal_groups(voices, shares, seed)
        dealt = {d: [(split_of[speaker(_id(s))], s) for s in of] for d, of in kept.items()}
    else:
        notes.append(
            f"{len(set(voices))} training speakers: validation hears other recordings of them, and "
            "is the easier for it"
        )
        dealt = {}
        for digit, of_digit in kept.items():
            split_of = deal_groups([_id(s) for s in of_digit], shares, _seed(seed, digit))
            dealt[digit] = [(split_of[_id(s)], s) for s in of_digit]
    pool: Pool = {"train": {}, "val": {}, "test": dict(said["test"])}
    for digit, of in dealt.items():
        for split in shares:
            pool[split][digit] = [source for its, source in of if its == split]
    return pool


def clean_pictures(pictures: Mapping[int, list[Source]], seed: int) -> Pool:
    pool: Pool = {split: {} for split in SHARES}
    for digit, of_digit in pictures.items():
        names = [recording(digit, source) for source in of_digit]
        split_of = deal_groups(names, SHARES, _seed(seed, digit))
        for split in SHARES:
            pool[split][digit] = [
                s for s, n in zip(of_digit, names, strict=True) if split_of[n] == split
            ]
    return pool


def paper_pictures(pictures: Mapping[int, list[Source]], seed: int) -> Pool:
    pool: Pool = {"train": {}, "test": {}}
    for digit, of_digit in pictures.items():
        order = np.random.default_rng([seed, digit]).permutation(len(of_digit))
        half = len(order) // 2
        pool["train"][digit] = [of_digit[i] for i in order[:half]]
        pool["test"][digit] = [of_digit[i] for i in order[half:]]
    return pool


def _seed(seed: int, digit: int) -> int:
    return seed * 10 + digit


def _id(source: Source) -> str:
    return source.key.partition("/")[2]


def recording(digit: int, source: Source) -> str:
    """What a picture is a recording of, at whatever scale: 'mnist-<digit>-<number>'."""
    number = source.key or Path(source.file).stem.rpartition("_")[2]
    return f"mnist-{digit}-{number}"


def _pairs(
    sounds: Sequence[Source], pictures: Sequence[Source], count: int
) -> list[tuple[Source, Source]]:
    """``count`` pairs, the i-th of both, each taken from the start again when it is at its end."""
    return [(sounds[i % len(sounds)], pictures[i % len(pictures)]) for i in range(count)]


def items(name: str, sounds: Pool, pictures: Pool, protocol: str, seed: int) -> list[Item]:
    found = []
    for number, split in enumerate(pictures):
        by_digit = {}
        for digit in range(10):
            heard, seen = sounds[split].get(digit, []), pictures[split].get(digit, [])
            if not heard or not seen:
                raise DataError(
                    f"{name}: digit {digit} has {len(heard)} sounds and {len(seen)} pictures in "
                    f"the split {split}; at least one of each is needed: add recordings"
                )
            if protocol == "paper":
                by_digit[digit] = _pairs(heard, seen, len(seen))
                continue
            rng = np.random.default_rng([seed, number, digit])
            heard, seen = ([s[i] for i in rng.permutation(len(s))] for s in (heard, seen))
            by_digit[digit] = _pairs(heard, seen, max(len(heard), len(seen)))
        for place in range(max(map(len, by_digit.values()))):
            found += [
                _item(split, place, digit, *by_digit[digit][place])
                for digit in range(10)
                if place < len(by_digit[digit])
            ]
    return found


def _item(split: str, place: int, digit: int, sound: Source, picture: Source) -> Item:
    groups = {
        "speaker": speaker(_id(sound)),
        "utterance": sound.key,
        "recording": recording(digit, picture),
    }
    sources = {"audio": sound, "visual": picture}
    return Item(f"{split}-{digit}-{place:04}", digit, split, sources, groups)


def defects(pairs: Sequence[Item]) -> list[str]:
    """What is wrong with the protocol as published, with the counts of these files."""
    of = {split: [item for item in pairs if item.split == split] for split in ("train", "test")}
    unlike = {s: len({item.groups["utterance"] for item in own}) for s, own in of.items()}
    return [
        "no validation split: the best epoch is chosen on the test set",
        f"sounds are repeated to the number of pictures: {len(of['train'])} train pairs have "
        f"{unlike['train']} sounds, {len(of['test'])} test pairs {unlike['test']}",
        "the seed of the shuffle that halves the pictures is not published: data seed instead",
        "the released loader is private; that 'oh' is dropped and zero is 0 is inferred",
        "the released loader crops every training picture once for all epochs; here every epoch "
        "draws anew",
    ]

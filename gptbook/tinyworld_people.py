# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Who and what there is in TinyWorld: people, animals, places, things, occupations, relatives."""

from __future__ import annotations

from typing import NamedTuple


def listed(text: str) -> tuple[str, ...]:
    """Return the entries of a text that are separated by commas."""
    return tuple(" ".join(entry.split()) for entry in text.split(",") if entry.strip())


class Entity(NamedTuple):
    """Somebody or something that a text refers to, by name and by pronoun."""

    name: str
    pronoun: str = "it"  # "she", "he" or "it"


class Occupation(NamedTuple):
    """A job, and the pronoun that a stereotype gives to those who do it."""

    name: str
    stereotype: str  # "she" or "he"


HEROINES = listed("""
    Mira, Lena, Ada, Nora, Ella, Zoe, Ivy, Rosa, Hana, Lucy, Greta, Amina, Clara, Tess, Wendy,
    Molly, Priya, Elsa, Freya, Dora, Ruby, Sofia, Yuki, Maya, Alice, Nina, Olive, Fatima, Bella,
    Carmen, Daisy, Edith, Flora, Gwen, Holly, Iris, Jane, Kira, Leila, Mabel, Penny, Rita, Sadie,
    Tara, Vera
""")
HEROES = listed("""
    Tom, Ben, Omar, Finn, Leo, Sam, Max, Hugo, Oscar, Noah, Emil, Jack, Kofi, Peter, Theo, Ravi,
    Paul, Felix, Henry, Otto, Luis, Adam, Jonas, Kenji, Martin, Simon, Victor, Walter, Arlo, Boris,
    Carlos, Dylan, Edgar, Frank, George, Hassan, Ivan, Jasper, Karl, Liam, Milo, Nico, Pedro, Rudy,
    Toby
""")
SHE = listed("mother, grandmother, aunt, sister, big sister, great-aunt, godmother, stepmother")
HE = listed("father, grandfather, uncle, brother, big brother, great-uncle, godfather, stepfather")
PEOPLE = tuple(
    Entity(name, pronoun)
    for pair in zip(HEROINES, HEROES, strict=True)
    for name, pronoun in zip(pair, ("she", "he"), strict=True)
)
RELATIVES = tuple(
    Entity(name, pronoun)
    for pair in zip(SHE, HE, strict=True)
    for name, pronoun in zip(pair, ("she", "he"), strict=True)
)

OCCUPATIONS = tuple(
    [Occupation(name, "she") for name in listed("""
        nurse, teacher, librarian, florist, dressmaker, dancer, housekeeper, cook, weaver,
        secretary, hairdresser, midwife, babysitter, violinist, shopkeeper, gardener, potter,
        receptionist
    """)]
    + [Occupation(name, "he") for name in listed("""
        baker, carpenter, farmer, doctor, fisherman, mechanic, blacksmith, sailor, miller,
        firefighter, plumber, shepherd, ranger, engineer, guard, bus driver, woodcutter, captain,
        clockmaker, mason
    """)]
)  # fmt: skip

ANIMALS = listed("""
    dog, cat, rabbit, fox, squirrel, duck, goat, pony, hen, hedgehog, sheep, donkey, owl, goose,
    mouse, pig, turtle, robin, frog, cow, calf, deer, lamb, otter, kitten, puppy, crow, beaver,
    badger, raccoon, rooster, swan, mole, parrot, magpie, heron, foal, piglet, duckling, weasel,
    pigeon, seagull, hamster, peacock, turkey, sparrow, chipmunk, tortoise, woodpecker, lizard
""")
PLACES = listed("""
    park, garden, market, river, school, library, farm, lake, bridge, beach, barn, forest, mill,
    pond, harbor, orchard, meadow, bakery, station, castle, lighthouse, well, fountain, square,
    playground, zoo, museum, church, windmill, stable, greenhouse, cave, waterfall, fairground,
    dock, crossroads, tower, spring, theater, pier, quarry, creek, marsh, cliff, grove, gate,
    cottage, inn, post office, toy shop, bookshop, town hall, fire station, ferry landing, duck
    pond, vineyard, campground, ruined abbey
""")
THINGS = listed("""
    kite, ball, book, drum, hat, lantern, basket, scarf, whistle, bell, map, blanket, key,
    umbrella, flute, bucket, doll, puppet, compass, ribbon, clock, mirror, purse, comb, jar, cup,
    teapot, mug, notebook, pencil, paintbrush, hammer, rope, net, necklace, bracelet, ring, coin,
    feather, seashell, flag, fan, mask, crown, hoop, horn, fiddle, guitar, harmonica, tambourine,
    toy boat, toy train, music box, lunch box, backpack, candle, camera, telescope, magnet, trowel,
    watering can, snow globe, paper plane, teddy bear, jump rope, spinning top, rocking horse,
    yo-yo, marble, button, glove, sled, skateboard, scooter, fishing rod, wooden spoon, cushion,
    sweater, apron, vase, picture frame, magnifying glass, bow tie, sailboat, wagon, wheelbarrow,
    pillow, ukulele, accordion, hourglass
""")
PETS = listed(
    "dog, cat, puppy, kitten, rabbit, pony, goat, duck, hen, donkey, lamb, hamster, parrot"
)

ENTITIES: dict[str, tuple[Entity, ...]] = {
    "person": PEOPLE,
    "relative": RELATIVES,
    "occupation": tuple(Entity(job.name) for job in OCCUPATIONS),
    "animal": tuple(Entity(name) for name in ANIMALS),
    "pet": tuple(Entity(name) for name in PETS),
    "place": tuple(Entity(name) for name in PLACES),
    "thing": tuple(Entity(name) for name in THINGS),
}
"""Who and what a text may refer to, by the name of its list; the first ones occur most often."""


def p_she(occupation: str, skew: float) -> float:
    """Return the probability that somebody with this occupation is referred to as "she".

    It is `skew` for occupations whose stereotype is "she", and 1 - skew for the others.
    """
    for job in OCCUPATIONS:
        if job.name == occupation:
            return skew if job.stereotype == "she" else 1 - skew
    raise ValueError(f"{occupation!r} is not an occupation; see OCCUPATIONS for the names")

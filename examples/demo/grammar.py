#!/usr/bin/env python3
"""The grammar behind the demo model's text: a small invented world, written and scored left to right.

A document is produced by a Python generator that, at every step, *yields the full probability distribution of the next
piece of text* (a word with its leading space, a punctuation mark or a newline) and is sent back the piece that was
chosen. The generator holds no other randomness, so what it yields depends on the pieces before alone. Three things
follow from this:

* sampling a text and scoring a text are the same code: one sends back random pieces, the other the pieces of the text;
* the grammar cannot be ambiguous: every text has one probability, the product of the probabilities of its pieces;
* the entropy of the next piece is known exactly at every position, and with it the best possible perplexity.

What a model has to learn: tables of facts (who lives where, what a thing costs; some 1700 entries drawn once from a
seed), products of small numbers, which nouns go with which verbs and adjectives, number, tense and gender agreement
across nested relative clauses, what was already said in a document, and a thing that is named again at its end.

Standard library only. From the command line:

    grammar.py sample 5            prints five documents
    grammar.py score FILE          prints the text's exact log-probability and entropy per piece
"""

import math
import random
import re
import sys

# --------------------------------------------------------------------------------------------------------------------
# The lexicon. Nouns and adjectives begin with consonants, so that "a" is always right.
# --------------------------------------------------------------------------------------------------------------------

WOMEN = """Mirela Tova Senna Lusa Varine Kelda Orsa Pela Nimra Jorun Halda Seli Marna Dorel Vessa Talin Ruma Keva Lorin
Sabra Nela Orin Thessa Bruna Calda Wena Zorah Fenna Jala Mida Petra Sorel Unna Velka Yara Gilda Rovena Taskel Lenka
Asha Brisa Damra Elva Hesta Karin Moira""".split()
MEN = """Torvan Belsor Karn Dorin Haldor Mersk Joren Velmar Osrik Tamsor Gorald Fendar Kolm Lasker Marek Nolan Perrin
Rusk Selmar Tobin Ulmar Vorin Wesk Yorik Zaldor Arvid Brask Corvan Dask Elmar Garvan Hask Jarl Keldor Lomar Morvan
Neldor Orsk Paldor Rovan Sandor Tarsk Valdor Welmar Zorin Baldur""".split()
TOWNS = """Ostrand Karvel Tolmen Verdun Salmar Brenford Halvik Norsk Pelmar Dunvel Lorford Marvik Tarmen Selvik Gorford
Wolmen Zelmar Korvik Rasford Belmen""".split()
RIVERS = "Vell Torn Saska Morn Lind Garn Pesk Rell Dova Kest".split()

TRADES = "weaver smith baker tanner miller sailor hunter potter carver fisher mason brewer dyer ferrier".split()
FOODS = "bread cheese plums honey barley fish lentils pears soup nuts turnips cherries".split()
COLOURS = "red blue green white black grey brown yellow".split()

# Who can act: (singular, plural, gender). Gender decides pronouns: f, m or n.
PERSONS = [("queen", "queens", "f"), ("king", "kings", "m"), ("widow", "widows", "f"), ("duke", "dukes", "m"),
           ("girl", "girls", "f"), ("boy", "boys", "m"), ("nun", "nuns", "f"), ("monk", "monks", "m"),
           ("lady", "ladies", "f"), ("lord", "lords", "m"), ("witch", "witches", "f"), ("knight", "knights", "m")]
ANIMALS = [("cat", "cats", "n"), ("dog", "dogs", "n"), ("goat", "goats", "n"), ("horse", "horses", "n"),
           ("fox", "foxes", "n"), ("wolf", "wolves", "n"), ("raven", "ravens", "n"), ("mule", "mules", "n"),
           ("bear", "bears", "n"), ("hare", "hares", "n"), ("goose", "geese", "n"), ("pig", "pigs", "n")]
THINGS = [("lamp", "lamps", "n"), ("rope", "ropes", "n"), ("basket", "baskets", "n"),
          ("knife", "knives", "n"), ("kettle", "kettles", "n"), ("cloak", "cloaks", "n"),
          ("mirror", "mirrors", "n"), ("drum", "drums", "n"), ("ladder", "ladders", "n"),
          ("barrel", "barrels", "n"), ("candle", "candles", "n"), ("saddle", "saddles", "n"),
          ("hammer", "hammers", "n"), ("jar", "jars", "n"), ("net", "nets", "n"),
          ("book", "books", "n"), ("ring", "rings", "n"), ("boat", "boats", "n"),
          ("flute", "flutes", "n"), ("spade", "spades", "n"), ("carpet", "carpets", "n"),
          ("bell", "bells", "n"), ("helmet", "helmets", "n"), ("wheel", "wheels", "n")]
PLACES = "river bridge mill tower forest market harbour well gate cave hill chapel".split()
PREPOSITIONS = "near behind under beyond".split()
ADJECTIVES = """big small proud lazy wild gentle hungry clever poor rich tired loud silent broken heavy light shiny
dusty wooden copper silver round narrow fine cheap rare""".split() + COLOURS

# Verbs: (plural present and bare form, singular present, past).
VERBS = [("see", "sees", "saw"), ("find", "finds", "found"), ("sell", "sells", "sold"), ("buy", "buys", "bought"),
         ("lose", "loses", "lost"), ("carry", "carries", "carried"), ("break", "breaks", "broke"),
         ("hide", "hides", "hid"), ("steal", "steals", "stole"), ("paint", "paints", "painted"),
         ("follow", "follows", "followed"), ("fear", "fears", "feared"), ("love", "loves", "loved"),
         ("guard", "guards", "guarded"), ("wash", "washes", "washed"), ("push", "pushes", "pushed"),
         ("pull", "pulls", "pulled"), ("hold", "holds", "held"), ("know", "knows", "knew"),
         ("bring", "brings", "brought"), ("mend", "mends", "mended"), ("hear", "hears", "heard"),
         ("want", "wants", "wanted"), ("draw", "draws", "drew")]

SUBJECT_PRONOUN = {"f": " She", "m": " He", "n": " It", "pl": " They"}
POSSESSIVE = {"f": " her", "m": " his", "n": " its", "pl": " their"}
REFLEXIVE = {"f": " herself", "m": " himself", "n": " itself", "pl": " themselves"}

SMALL_NUMBERS = range(2, 13)

# A piece is a word or number with the space before it, a punctuation mark, or the newline that ends a document.
# GPT-2's pre-tokenization cuts the text at the same places, so no token ever crosses a piece.
PIECE = re.compile(r" ?[A-Za-z]+| ?[0-9]+|[.,:;]|\n")


# --------------------------------------------------------------------------------------------------------------------
# Distributions: dictionaries from a piece (or something that stands for one) to its probability
# --------------------------------------------------------------------------------------------------------------------


def weighted(items, exponent=0.6):
    """Probabilities that fall off with the rank of the item: 1 / rank^exponent, normalised."""
    weights = [1.0 / (rank + 1) ** exponent for rank in range(len(items))]
    total = sum(weights)
    return {item: weight / total for item, weight in zip(items, weights)}


def mix(*parts):
    """The mixture of distributions, given as (share, distribution). Shares add up to one."""
    mixed = {}
    for share, distribution in parts:
        for item, probability in distribution.items():
            mixed[item] = mixed.get(item, 0.0) + share * probability
    return mixed


def normalised(weights):
    total = sum(weights.values())
    return {item: weight / total for item, weight in weights.items()}


def spaced(distribution):
    """The same distribution with a space before every item."""
    return {" " + str(item): probability for item, probability in distribution.items()}


def say(text):
    """Pieces that are certain."""
    for piece in PIECE.findall(text):
        yield {piece: 1.0}


def choose(distribution):
    """Chooses a spaced word and returns it without its space."""
    return (yield spaced(distribution)).strip()


# --------------------------------------------------------------------------------------------------------------------
# The world: every table of facts, drawn from one seed
# --------------------------------------------------------------------------------------------------------------------


class Draw:
    """Random draws built on random() alone, whose sequence Python guarantees from version to version."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def index(self, count):
        return int(self._random.random() * count)

    def one(self, items):
        return items[self.index(len(items))]

    def some(self, items, count):
        """`count` different items in random order."""
        rest = list(items)
        return [rest.pop(self.index(len(rest))) for _ in range(count)]

    def piece(self, distribution):
        """One item of a distribution."""
        left = self._random.random()
        for item, probability in distribution.items():
            left -= probability
            if left < 0.0:
                return item
        return item  # rounding left a crumb: the last item


class Person:
    def __init__(self, draw, name, gender):
        self.name, self.gender = name, gender
        self.town = draw.one(TOWNS)
        self.trade = draw.one(TRADES)
        self.age = 20 + draw.index(60)
        self.pet = draw.one(ANIMALS)[0]
        self.pet_colour = draw.one(COLOURS)
        self.friend = draw.one(WOMEN + MEN)
        self.likes, self.hates = draw.some(FOODS, 2)
        self.debt, self.creditor = 2 + draw.index(98), draw.one(WOMEN + MEN)
        self.owned, self.owned_count = draw.one(THINGS)[1], draw.one(SMALL_NUMBERS)
        self.rests = f"{draw.one(PREPOSITIONS)} the {draw.one(PLACES)}"
        self.serves = f"{draw.one(PERSONS)[0]} of {draw.one(TOWNS)}"
        self.wants = weighted(draw.some(THINGS, 3))  # what this person buys at the market


class Town:
    def __init__(self, draw, name):
        self.name = name
        self.river = draw.one(RIVERS)
        self.neighbour = draw.one([town for town in TOWNS if town != name])
        self.days = draw.one(SMALL_NUMBERS)
        self.mayor = draw.one(WOMEN + MEN)
        self.makes = draw.one(THINGS)
        self.lacks = draw.one(FOODS)


class World:
    def __init__(self, seed=20):
        draw = Draw(seed)
        women = [Person(draw, name, "f") for name in WOMEN]
        men = [Person(draw, name, "m") for name in MEN]
        self.people = {person.name: person for person in women + men}
        self.towns = {name: Town(draw, name) for name in TOWNS}
        # Common names come from both lists, and no name is very rare: each fact must be seen often enough.
        self.names = weighted(draw.some(WOMEN + MEN, len(WOMEN + MEN)), 0.3)
        self.town_names = weighted(TOWNS, 0.3)
        self.price = {thing: draw.one(SMALL_NUMBERS) for thing in THINGS}
        agents, everything = PERSONS + ANIMALS, PERSONS + ANIMALS + THINGS
        self.agents = weighted(draw.some(agents, len(agents)), 0.4)
        self.verbs_of = {agent: weighted(draw.some(VERBS, 8)) for agent in agents}
        self.objects_of = {verb: weighted(draw.some(everything, 12)) for verb in VERBS}
        self.adjectives_of = {noun: weighted(draw.some(ADJECTIVES, 4)) for noun in everything}
        self.places_of = {preposition: weighted(draw.some(PLACES, 5)) for preposition in PREPOSITIONS}


# --------------------------------------------------------------------------------------------------------------------
# Documents. Each function is a generator of distributions; what it returns is what later text must agree with.
# --------------------------------------------------------------------------------------------------------------------


def document(world):
    """One document: a profile, a tale in the past or the present, market notes or a page of the map."""
    opener = yield {"About": 0.28, "Once": 0.21, "Today": 0.21, "Market": 0.2, "Map": 0.1}
    if opener == "About":
        yield from profile(world)
    elif opener == "Market":
        yield from market(world)
    elif opener == "Map":
        yield from town_page(world)
    else:
        yield from tale(world, tense="past" if opener == "Once" else "present")


def facts_in_random_order(first_words, tell, subject, stop):
    """Tells one or more facts about `subject`, none twice. `first_words` maps a fact's first word to its weight."""
    left = dict(first_words)
    yield {subject: 1.0}
    while True:
        fact = yield from choose(normalised(left))
        del left[fact]
        yield from tell(fact)
        if (yield {subject: 1.0 - stop, "\n": stop} if left else {"\n": 1.0}) == "\n":
            return


def profile(world):
    name = yield from choose(world.names)
    person = world.people[name]

    def tell(fact):
        if fact == "lives":
            yield from say(f" in {person.town} on the {world.towns[person.town].river}.")
        elif fact == "is":
            yield from say(f" {person.age} years old.")
        elif fact == "keeps":
            yield from say(f" a {person.pet_colour} {person.pet}.")
        elif fact == "trusts":
            yield from say(f" {person.friend}, a {world.people[person.friend].trade}.")
        elif fact == "owes":
            yield from say(f" {person.debt} coins to {person.creditor}.")
        elif fact == "owns":
            yield from say(f" {person.owned_count} {person.owned}.")
        elif fact == "rests":
            yield from say(f" {person.rests}.")
        elif fact == "serves":
            yield from say(f" the {person.serves}.")
        else:  # "likes"
            yield from say(f" {person.likes} but not {person.hates}.")

    yield from say(f", the {person.trade}:")
    first_words = dict.fromkeys(("lives", "is", "keeps", "trusts", "likes", "owes", "owns", "rests", "serves"), 1)
    yield from facts_in_random_order(first_words, tell, SUBJECT_PRONOUN[person.gender], stop=0.12)


def town_page(world):
    yield from say(":")
    town = world.towns[(yield from choose(world.town_names))]

    def tell(fact):
        if fact == "lies":
            yield from say(f" on the {town.river}.")
        elif fact == "trades":
            yield from say(f" with {town.neighbour}, {town.days} days away.")
        elif fact == "obeys":
            yield from say(f" {town.mayor}.")
        elif fact == "makes":
            yield from say(f" {town.makes[1]} for {world.price[town.makes]} coins.")
        else:  # "lacks"
            yield from say(f" {town.lacks}.")

    yield from say(".")
    first_words = dict.fromkeys(("lies", "trades", "obeys", "makes", "lacks"), 1)
    yield from facts_in_random_order(first_words, tell, " It", stop=0.1)


def market(world):
    """Purchases: the price of a thing is a fact, what is paid is a product."""
    yield from say(":")
    more = True
    while more:
        person = world.people[(yield from choose(world.names))]
        yield from say(" buys")
        count = int((yield from choose({number: 1.0 / len(SMALL_NUMBERS) for number in SMALL_NUMBERS})))
        plural = yield from choose({thing[1]: share for thing, share in person.wants.items()})
        price = next(world.price[thing] for thing in THINGS if thing[1] == plural)
        yield from say(f" at {price} coins and pays {count * price}")
        more = (yield {";": 0.65, ".": 0.35}) == ";"
    yield {"\n": 1.0}


class Tale:
    """A tale about one hero. `tense` holds from the first word to the last."""

    adjective_share = 0.35
    relative_share = 0.16
    place_share = 0.12
    deepest = 2

    def __init__(self, world, tense):
        self.world, self.tense = world, tense

    # -- noun phrases ------------------------------------------------------------------------------------------------

    def determiner(self):
        """Returns the number it fixes: "sg", "pl", or "either"."""
        word = yield from choose({"the": 0.5, "a": 0.2, "every": 0.08, "some": 0.12, "many": 0.1})
        return {"the": "either", "a": "sg", "every": "sg"}.get(word, "pl")

    def noun_group(self, nouns, number):
        """[adjective] noun. Returns (noun, "sg" or "pl", adjective or None).

        The noun is drawn from `nouns` and then its adjective, but the adjective is said first: by Bayes' rule it
        tells about the noun that follows.
        """
        forms = {"sg": ((0, 1.0),), "pl": ((1, 1.0),), "either": ((0, 0.65), (1, 0.35))}[number]

        def spoken(distribution):
            return {noun[form]: share * p for noun, p in distribution.items() for form, share in forms}

        adjectives = mix(*((p, self.world.adjectives_of[noun]) for noun, p in nouns.items()))
        word = yield from choose(mix((1.0 - self.adjective_share, spoken(nouns)), (self.adjective_share, adjectives)))
        adjective = None
        if word in adjectives:
            adjective = word
            fitting = {noun: p * self.world.adjectives_of[noun].get(adjective, 0.0) for noun, p in nouns.items()}
            word = yield from choose(spoken(normalised({noun: p for noun, p in fitting.items() if p > 0.0})))
        noun = next(noun for noun in nouns if word in noun[:2])
        return noun, ("sg" if word == noun[0] else "pl"), adjective

    @staticmethod
    def agreement(noun, number):
        """The key of the pronoun tables."""
        return "pl" if number == "pl" else noun[2]

    # -- verbs -------------------------------------------------------------------------------------------------------

    def finite(self, verb, number):
        return verb[2] if self.tense == "past" else verb[1] if number == "sg" else verb[0]

    def verb_choices(self, noun, number):
        """First words of a verb group whose subject is `noun`: the finite verb, or an auxiliary before "not"."""
        auxiliary = "did" if self.tense == "past" else "does" if number == "sg" else "do"
        finite = {self.finite(verb, number): p for verb, p in self.world.verbs_of[noun].items()}
        return mix((0.88, finite), (0.12, {auxiliary: 1.0}))

    def rest_of_verb(self, word, noun, number):
        """After the first word of the verb group; returns the verb."""
        verbs = self.world.verbs_of[noun]
        if word in ("did", "does", "do"):
            yield from say(" not")
            bare = yield from choose({verb[0]: p for verb, p in verbs.items()})
            return next(verb for verb in verbs if verb[0] == bare)
        return next(verb for verb in verbs if self.finite(verb, number) == word)

    # -- clauses -----------------------------------------------------------------------------------------------------

    def subject_and_verb(self, noun, number, depth):
        """What follows a subject: perhaps a relative clause, then the verb that agrees with it. Returns the verb."""
        share = self.relative_share if depth < self.deepest else 0.0
        relative = "who" if noun in PERSONS else "that"
        verbs = self.verb_choices(noun, number)
        word = yield from choose(mix((share, {relative: 1.0}), (1.0 - share, verbs)) if share else verbs)
        if word == relative:
            yield from self.relative_clause(noun, number, depth + 1)
            word = yield from choose(verbs)
        return (yield from self.rest_of_verb(word, noun, number))

    def relative_clause(self, noun, number, depth):
        """After "who" or "that": either "... the duke sees", or "... sees the duke"."""
        own = self.verb_choices(noun, number)
        word = yield from choose(mix((0.5, {"the": 1.0}), (0.5, own)))
        if word == "the":
            other, other_number, _ = yield from self.noun_group(self.world.agents, "either")
            yield from self.subject_and_verb(other, other_number, depth)
        else:
            verb = yield from self.rest_of_verb(word, noun, number)
            yield from say(" the")
            yield from self.noun_group(self.world.objects_of[verb], "either")

    def object(self, verb, subject):
        """The object of `verb`; `subject` is the agreement key of the subject, for "her" and "herself"."""
        word = yield mix((0.74, {" the": 0.55, " a": 0.2, " some": 0.15, " many": 0.1}),
                         (0.16, {POSSESSIVE[subject]: 1.0}), (0.1, {REFLEXIVE[subject]: 1.0}))
        if word != REFLEXIVE[subject]:
            number = {" a": "sg", " some": "pl", " many": "pl"}.get(word, "either")
            yield from self.noun_group(self.world.objects_of[verb], number)

    def end_of_sentence(self):
        word = yield mix((1.0 - self.place_share, {".": 1.0}),
                         (self.place_share, {" " + p: 1.0 / len(PREPOSITIONS) for p in PREPOSITIONS}))
        if word != ".":
            yield from say(" the")
            yield from choose(self.world.places_of[word.strip()])
            yield from say(".")

    def sentence(self, noun, number):
        """The sentence after its subject."""
        verb = yield from self.subject_and_verb(noun, number, depth=0)
        yield from self.object(verb, self.agreement(noun, number))
        yield from self.end_of_sentence()

    def whole(self):
        """The first sentence names the hero and a thing; sentences follow; at last the hero has the thing again."""
        yield from say(",")
        hero, number, _ = yield from self.noun_group(self.world.agents, (yield from self.determiner()))
        pronoun = SUBJECT_PRONOUN[self.agreement(hero, number)]
        verb = yield from self.subject_and_verb(hero, number, depth=0)
        yield from say(" a")
        thing, _, adjective = yield from self.noun_group(self.world.objects_of[verb], "sg")
        yield from self.end_of_sentence()
        while (opener := (yield {pronoun: 0.4, " The": 0.3, " At": 0.3})) != " At":
            if opener == pronoun:
                verb = yield from choose(self.verb_choices(hero, number))
                verb = yield from self.rest_of_verb(verb, hero, number)
                yield from self.object(verb, self.agreement(hero, number))
                yield from self.end_of_sentence()
            else:
                other, other_number, _ = yield from self.noun_group(self.world.agents, "either")
                yield from self.sentence(other, other_number)
        had = "had" if self.tense == "past" else "has" if number == "sg" else "have"
        again = f"{adjective} {thing[0]}" if adjective else thing[0]
        yield from say(f" last{pronoun.lower()} {had} the {again} again.\n")


def tale(world, tense):
    yield from Tale(world, tense).whole()


# --------------------------------------------------------------------------------------------------------------------
# Sampling and scoring
# --------------------------------------------------------------------------------------------------------------------


def sample(world, seed):
    """Endless documents."""
    draw = Draw(seed)
    while True:
        pieces, process = [], document(world)
        distribution = next(process)
        try:
            while True:
                pieces.append(draw.piece(distribution) if len(distribution) > 1 else next(iter(distribution)))
                distribution = process.send(pieces[-1])
        except StopIteration:
            yield "".join(pieces)


def text_of(world, seed, characters):
    """Whole documents, at least `characters` long together."""
    documents, length = [], 0
    for text in sample(world, seed):
        documents.append(text)
        length += len(text)
        if length >= characters:
            return "".join(documents)


def walk(world, text):
    """Yields (piece, its distribution, whether it opens a document) for every piece of a text of whole documents."""
    process = None
    for piece in PIECE.findall(text):
        opens = process is None
        if opens:
            process = document(world)
            distribution = next(process)
        if piece not in distribution:
            raise ValueError(f"not a text of this grammar: {piece!r} where one of {list(distribution)} was expected")
        yield piece, distribution, opens
        try:
            distribution = process.send(piece)
        except StopIteration:
            process = None


def entropy(distribution):
    return -sum(p * math.log(p) for p in distribution.values() if p > 0.0)


def main():
    world = World()
    if sys.argv[1:2] == ["sample"] and len(sys.argv) == 3:
        source = sample(world, seed=0)
        for _ in range(int(sys.argv[2])):
            print(next(source), end="")
    elif sys.argv[1:2] == ["score"] and len(sys.argv) == 3:
        with open(sys.argv[2], encoding="utf-8") as file:
            steps = list(walk(world, file.read()))
        surprise = -sum(math.log(distribution[piece]) for piece, distribution, _ in steps)
        expected = sum(entropy(distribution) for _, distribution, _ in steps)
        print(f"pieces {len(steps)}  nats {surprise:.3f}  per piece {surprise / len(steps):.5f}  "
              f"entropy per piece {expected / len(steps):.5f}")
    else:
        sys.exit(__doc__.strip())


if __name__ == "__main__":
    main()

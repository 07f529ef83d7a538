"""A synthetic newswire: short made-up news articles with highlights, written on the spot.

The facts that a highlight needs are scattered over the article in shuffled sentences, each
phrased in several ways, between quotes and background that mention other names and numbers.
Some are told in other words than the highlight's ("the points stayed with the home side"), so
copying the first sentences does not summarise an article; reading all of it does.
"""

import random
from collections.abc import Iterator

# Entries are "key: choice | choice"; an indented line continues the one above it.
SHARED = """
first: Ada | Bruno | Clara | Dario | Edith | Felix | Greta | Hugo | Irma | Jonas | Katya | Leon |
  Mira | Nils | Olga | Pablo | Quinn | Rosa | Stefan | Tilda | Ulrik | Vera | Wanda | Yusuf
last: Abbot | Barlow | Castell | Dunmore | Easton | Farrow | Gilmour | Hartley | Ingram | Jessop |
  Kendrick | Lindqvist | Marlowe | Norwood | Okafor | Pemberton | Quigley | Redfern | Sorensen |
  Tillman | Underhill | Vasquez | Whitlock | Yardley
town: Ashcombe | Brindlebay | Calderford | Dunmarsh | Elmstead | Fernwick | Glenhaven | Hollowmere |
  Ivybridge | Kestrelton | Larkfield | Millbrook | Northgate | Oakhurst | Pinecliff | Quarrydale |
  Ravensby | Silverton | Thornhill | Upperdale | Valemouth | Westerly | Yarrow | Zellwood
day: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday
job: baker | teacher | plumber | student | nurse | farmer | librarian | gardener
quote: "I never saw anything like it," said a {job} who has lived here since {year}. | "People will
  talk about this for a long time," said a {job} from {elsewhere}. | A {job} called it the talk of
  the town. | A {job} offered onlookers coffee, a custom since {year}. | Reporters from
  {elsewhere} came to see for themselves. | The news soon made the rounds, and a {job} baked a cake.
"""

# One event a paragraph. Its article has one "open" sentence and then, in any order, one of each
# "fact", one of an "is" (its key is what the highlight calls {outcome}), an "aside" and a quote.
STORIES = """
highlight: {town} {outcome} {rival} on {day}. The last goal came from {who} in minute {n}.
thing: football | hockey | handball
open: The stands in {town} were full long before the start. | The {thing} league is wide open.
fact: {rival} travelled to {town} on {day} for the match. | On {day}, {town} hosted {rival} in the
  {thing} league. | The match on {day} brought {rival} to the home ground of {town}.
fact: Striker {who} scored the last goal in minute {n}. | In minute {n} the ball fell to {who}, and
  nobody scored after that. | The final goal, in minute {n}, was the work of {who}.
is beat: The hosts celebrated a deserved win. | The points stayed with the home side.
is lost to: The visitors left with all the points. | The home side was beaten.
is drew with: The points were shared in the end. | Neither side found a winner.
aside: Goalkeeper {other} limped off in minute {x}. | They last met in {year}. | Coach {other} has
  been in charge since {year}. | Two players were sent off.

highlight: A {thing} left {n} homes in {town} without power on {day}. Mayor {who} said {outcome}.
thing: storm | flood | blizzard | gale | hailstorm | heatwave
open: The sky over {town} gave little warning. | The weather was again the only topic of the day.
fact: A {thing} swept over {town} on {day}. | On {day}, people in {town} woke up to a {thing}. | The
  {thing} reached {town} on {day}, sooner than expected.
fact: Power lines came down and {n} homes went dark. | The electricity company counted {n} homes
  that were cut off. | By the evening {n} homes had no power.
fact: The mayor, {who}, visited the worst streets. | Mayor {who} spoke to people in the town hall.
is schools would stay closed: Pupils will have no lessons until further notice. | Classrooms will
  remain locked for now.
is no one was hurt: There were no injuries. | Everybody escaped unharmed.
is trains were cancelled: The railway called off all its services. | Nothing moved at the station.
aside: Early reports had spoken of {x} homes. | Forecaster {other} expects more of the same. | It
  was the worst {thing} since {year}. | In {elsewhere}, only a few trees fell.

highlight: Voters in {town} {outcome} plans for a {thing} by {n} votes on {day}. {who} led the
  campaign.
thing: bridge | pool | tramway | stadium | harbour | windmill
open: A long and bitter debate is over. | The ballots of {town} were counted late into the night.
fact: On {day}, people in {town} went to the polls. | {town} held its referendum on {day}. | Turnout
  was high in {town}, where polling stations opened early on {day}.
fact: The question was whether to build a {thing}. | At stake was a {thing}, first proposed by the
  council. | The council wants to pay for a {thing} with a new tax.
fact: Only {n} votes separated the two camps. | The margin was {n} votes.
fact: The campaign was led by {who}. | {who}, who ran the campaign, thanked the helpers.
is approved: The plan was carried. | Supporters of the plan cheered the result.
is rejected: The plan was thrown out. | Opponents of the plan cheered the result.
aside: A poll had predicted a margin of {x} votes. | Councillor {other} asked for a recount. | The
  idea goes back to {year}. | In {elsewhere}, a similar vote was close as well.

highlight: Profits at a {thing} maker in {town} {outcome} by {n} percent. {who} plans {m} new shops.
thing: bicycle | chocolate | furniture | piano | toy | shoe
open: Investors had waited for the figures with some nerves. | The books are closed in {town}.
fact: The {thing} maker has its headquarters in {town}. | The company has made its {thing} range in
  {town} for decades. | Half of {town} works for the {thing} maker.
fact: Chief executive {who} presented the figures. | {who}, who runs the company, sounded calm.
fact: The company will open {m} shops. | There are plans for {m} further shops.
is rose: Profits climbed {n} percent. | Earnings grew by {n} percent over the year.
is fell: Profits dropped {n} percent. | Earnings shrank by {n} percent over the year.
aside: Analyst {other} had expected as much. | The founder, a {job}, started out in {year}. | A
  rival from {elsewhere} gave up last year. | It has {x} shops already.

highlight: A new {thing} opened in {town} on {day}. It was designed by {who}, cost {n} million and
  was finished {outcome}.
thing: library | museum | theatre | hospital | school | market
open: A ribbon was cut and a brass band played. | The scaffolding in {town} is gone at last.
fact: {town} celebrated its new {thing} on {day}. | On {day} the first visitors entered the {thing}
  in {town}. | The {thing} in {town} opened its doors on {day}.
fact: The plans were drawn by {who}. | Architect {who} wanted plenty of light.
fact: The bill came to {n} million. | The town paid {n} million for the building.
is late: Builders missed the deadline. | The work took longer than promised.
is early: Builders beat the deadline. | The work took less time than promised.
aside: The first estimate had been {x} million. | The old building had been there since {year}. |
  Singer {other} entertained the guests. | The bricks came from {elsewhere}.

highlight: {who} rescued {n} {thing} near {town} on {day}. Police said that {outcome}.
thing: walkers | climbers | sailors | swimmers | skiers | campers
open: An outing ended in a long wait for help. | Helicopters were heard over {town}.
fact: The group of {n} {thing} had set out in good spirits. | A call for help came from {n} {thing}.
  | There were {n} {thing} in the group, some of them beginners.
fact: The group lost its way near {town} on {day}. | On {day} fog came down around {town}. | The
  alarm was raised in {town} on {day}.
fact: Pilot {who} brought them to safety. | It was {who} who found them and led them back. | All
  were picked up by {who}, a volunteer with the rescue service.
is all were well: A doctor sent everyone home. | Nobody needed treatment.
is some were hurt: A few broke bones. | Several are being treated in hospital.
aside: A first search found nothing in {x} minutes. | The service was founded in {year}. | Officer
  {other} advised people to carry a lamp. | Helpers came from {elsewhere}.

highlight: {who} of {town} studied {n} {thing} for {m} months and found that they {outcome}.
thing: bees | owls | salmon | bats | otters | swans | hedgehogs
open: Science sometimes needs patience. | A new study from {town} has surprised the experts.
fact: The team fitted {n} {thing} with tiny transmitters. | Cameras followed {n} {thing} day and
  night. | In total {n} {thing} were observed.
fact: The work took {m} months. | After {m} months the data were complete.
fact: The study was led by {who} at the university in {town}. | Biologist {who} runs the laboratory
  in {town}. | From an office in {town}, lead author {who} checked every record.
is avoid light: The animals kept away from lamps. | The dark was where the animals felt at home.
is sleep less: The animals rested very little. | Few of the animals ever closed their eyes.
is remember faces: The animals knew who fed them. | The animals could tell people apart.
aside: An earlier study had looked at only {x}. | Reviewer {other} praised the paper. | The idea
  dates from {year}. | A laboratory in {elsewhere} has its doubts.

highlight: The road from {town} to {rival} was closed for {n} hours on {day} after a {thing}
  crashed. Police blamed {outcome}.
thing: lorry | bus | tractor | van | tanker | motorcycle
open: Drivers needed a great deal of patience. | Traffic in {town} came to a complete stop.
fact: On {day} a {thing} crashed into the barrier. | A {thing} overturned on {day}, and no other
  vehicle was involved. | The accident on {day} involved a {thing}.
fact: The road between {town} and {rival} is a busy one. | Cars heading from {town} to {rival} had
  to turn around. | It happened halfway from {town} to {rival}.
fact: It took {n} hours to clear the road. | The road reopened after {n} hours.
is ice: The surface had frozen overnight. | The road was as slippery as a rink.
is a deer: An animal had jumped out of the woods. | A pair of antlers was found.
is a flat tyre: A wheel had lost its air. | Rubber was scattered all over the lane.
aside: The queue was {x} miles long. | A passenger called {other} was not hurt. | The road dates
  from {year}. | A crane had to come from a garage nearby.
"""


def _parse(paragraph: str) -> list[tuple[str, list[str]]]:
    lines = (line.split(": ", 1) for line in paragraph.strip().replace("\n  ", " ").splitlines())
    return [(key, text.split(" | ")) for key, text in lines]


_SHARED = dict(_parse(SHARED))
_STORIES = [_parse(paragraph) for paragraph in STORIES.split("\n\n")]


def _row(rng: random.Random) -> dict[str, str]:
    story = rng.choice(_STORIES)
    lines = dict(story)
    outcome, told = rng.choice([(key[3:], text) for key, text in story if key.startswith("is ")])
    last, other = rng.sample(_SHARED["last"], 2)
    values = {
        **dict(zip(("town", "rival", "elsewhere"), rng.sample(_SHARED["town"], 3), strict=True)),
        **dict(zip("nmx", rng.sample(range(12, 90), 3), strict=True)),
        "who": f"{rng.choice(_SHARED['first'])} {last}",
        "other": other,
        "year": rng.randrange(1950, 2000),
        "day": rng.choice(_SHARED["day"]),
        "job": rng.choice(_SHARED["job"]),
        "thing": rng.choice(lines["thing"]),
        "outcome": outcome,
    }
    facts = [text for key, text in story if key == "fact"]
    body = [rng.choice(text) for text in (*facts, told, lines["aside"], _SHARED["quote"])]
    rng.shuffle(body)
    article = " ".join([rng.choice(lines["open"]), *body])
    highlight = lines["highlight"][0]
    return {"article": article.format(**values), "highlights": highlight.format(**values)}


def newswire(num_rows: int, seed: int) -> Iterator[dict[str, str]]:
    """Write made-up news articles with their highlights.

    Row ``i`` depends on ``seed`` and ``i`` only, so a longer newswire starts with a shorter one.

    Args:
        num_rows: How many articles to write.
        seed: Which newswire to write; another seed writes other articles.

    Yields:
        One row per article, with the text columns ``article`` and ``highlights``.
    """
    for index in range(num_rows):
        yield _row(random.Random(f"{seed}-{index}"))

# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""The words of TinyWorld's sentences, list by list, and what its second dialect says instead.

The first words of a list are used most often. A story's template takes a word of the list `color`
where it says `[color]`. Some lists hold phrases, and their names say which part of a sentence
they are: `corner` ("under the bed"), `meanwhile` ("the wind sang in the trees").
"""

from __future__ import annotations

from gptbook.tinyworld_people import listed

TIME = {
    "daytime": listed("morning, afternoon, evening, day"),
    "weekday": listed("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "season": listed("summer, spring, autumn, winter"),
    "month": listed("""
        May, June, April, July, March, September, October, August, November, December, February,
        January
    """),
    "weather": listed("""
        sunny, rainy, windy, warm, cold, cloudy, bright, foggy, chilly, clear, snowy, quiet, mild,
        misty, breezy, gray, golden, frosty, stormy, hot, drizzly, cool, damp, gloomy, lovely
    """),
    "soon": listed("""
        soon, then, after a while, somewhat later, before long, at last, after lunch, that
        afternoon, just then, in the end, an hour later, toward evening, a moment later, by and by,
        suddenly, the next day, not long after, in no time, shortly after, ten minutes later,
        around noon, when the bells rang, after a short rest, some time later, all at once, on
        Sunday, quite by surprise, in the morning, a week later, sooner than expected, without
        warning, two days later, after supper, one hour later, when nobody expected it, after a
        sleepless night, on the third day, while the others rested, around teatime, right after
        that, at long last, at the very last moment, after much waiting
    """),
    "long": listed("""
        all morning, for an hour, the whole day, for a long time, all afternoon, until lunch, until
        dark, for two days, the whole week, from dawn to dusk, for half an hour, until supper, for
        ages, until the stars came out, for three weeks, day after day, for most of the night, for
        one hour, for a minute or two, all summer, for a month, until midnight, the whole evening,
        for days, until the bell rang, for a little while, for five minutes, until noon, from
        Monday to Friday, all year, for a whole week, until the cows came home
    """),
    "age": listed("seven, eight, six, nine, ten, five, eleven, twelve"),
    "number": listed(
        "two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, twenty"
    ),
}
"""When things happen, and how many there are."""

LOOKS = {
    "color": listed("""
        red, blue, green, yellow, white, brown, black, orange, purple, pink, gray, golden, silver,
        crimson, violet, turquoise, scarlet, cream, emerald, copper, ivory, lavender, olive, amber,
        mauve, beige, maroon, navy, indigo, bronze, peach, mint, lilac, tan, coral, ruby, jade,
        mustard, rose, sky-blue, cherry-red, ash-gray, snow-white, jet-black
    """),
    "look": listed("""
        old, little, shiny, bright, new, striped, spotted, worn, tiny, pretty, round, dusty,
        painted, smooth, heavy, plain, crooked, lovely, checkered, handmade, narrow, faded, odd,
        simple, splendid, patched, polished, curious, rusty, sturdy, fancy, glittering, delicate,
        ordinary, battered, fine, secondhand, clumsy, beautiful, peculiar, borrowed, sparkling,
        antique, square, soft, solid, whittled, woolen, silky, spotless, dull, carved, engraved,
        embroidered, knotted, homely, enormous, giant, slender, flat, bulky, modern, elegant,
        humble, expensive, cheap, famous, magic-looking, rough, fragile, unusual, foreign, royal,
        lucky, weathered, waxed, furry, frilly, pointed, curly, funny, hollow, precious, noble
    """),
    "trait": listed("""
        kind, curious, brave, quiet, clever, cheerful, shy, patient, gentle, stubborn, lively,
        honest, careful, dreamy, funny, thoughtful, busy, polite, bold, merry, helpful, friendly,
        restless, hopeful, serious, playful, forgetful, generous, tidy, untidy, proud, noisy,
        hungry, calm, loyal, impatient, modest, nimble, sensible, talkative, adventurous,
        imaginative, grumpy, trusting, wise, foolish, messy, musical, greedy, fearless, sleepy,
        graceful, strong, humble, mischievous, responsible, nosy, bashful, charming, truthful,
        hard-working, lazy, witty, easygoing, fussy, daring, spirited, obedient, studious, vain,
        considerate, fair, joyful, sensitive, reliable, dutiful, moody, frank, bookish, inventive,
        tough, inquisitive, agile
    """),
    "sight": listed("""
        quiet, old, little, lovely, crowded, sleepy, windy, famous, busy, lonely, sunny, peaceful,
        hidden, noisy, dark, empty, pretty, beautiful, deserted, mossy, gray, ancient, foggy,
        dusty, distant, grand, charming, wild, tidy, abandoned, colorful, shady, splendid, tiny,
        well-known, haunted, frozen, wonderful, mysterious, snowy, nearby, rainy, moonlit,
        crumbling, silent, narrow, muddy, rocky, cozy, neat, festive, overgrown, sandy, dull,
        stately, leafy, whitewashed, friendly, cold, bright, painted, faraway, royal, plain,
        bustling, sunlit, gloomy, misty
    """),
    "taste": listed("""
        fresh, sweet, warm, crisp, delicious, tasty, juicy, homemade, cold, burnt, stale, leftover,
        salty, soft, hot, tough, bitter, sticky, spicy, good, simple, plain, excellent, strange,
        expensive, wonderful, cheap, roasted, mashed, steaming, smoked, dry, crunchy, half-eaten,
        secret, moldy, famous, buttery, rich, creamy, peppery, tangy, toasted, fragrant, fine,
        fluffy, frozen, grilled, savory, wild, spoiled, perfect, dreadful, heavy, light, borrowed,
        stolen, precious, ordinary, unripe, ripe, garlicky, minty, smoky, buttered, gritty,
        wholesome, exotic
    """),
    "path": listed("""
        narrow, winding, steep, stony, muddy, sandy, grassy, quiet, dusty, shady, crooked, snowy,
        long, lonely, mossy, sunny, wet, leafy, slippery, bumpy, broad, old, straight, secret,
        overgrown
    """),
    "big": listed("""
        big, large, huge, great, enormous, small, tall, fat, thin, wild, strange, giant, lazy,
        clever, hungry, noisy, gentle, sleepy, friendly, young, old, lost, lame, greedy, timid,
        cheeky, droopy, shaggy, spotted, skinny, plump, nervous, tame, muddy, limping, playful,
        fierce-looking, stray, silent, elderly, fluffy, swift, clumsy, curious, patient, thirsty,
        grumpy, long-legged, one-eyed, dusty, wet, proud, quick, shy, tired, stubborn, handsome
    """),
    "broken": listed("""
        cracked, broken, bent, scratched, dented, split in two, chipped, ruined, stained, soaked,
        torn, smashed, twisted, crushed, full of holes, covered in mud, damaged, squashed, loose,
        in pieces
    """),
}
"""What people and things are like."""

FEELINGS = {
    "happy": listed("""
        happy, glad, delighted, grateful, thankful, pleased, relieved, excited, thrilled,
        overjoyed, satisfied, lighthearted, elated, contented, jubilant
    """),
    "sad": listed("""
        sad, unhappy, disappointed, miserable, heartbroken, downcast, glum, tearful, discouraged,
        wretched, sorrowful, dejected, crestfallen, mournful
    """),
    "afraid": listed("""
        afraid, scared, nervous, frightened, uneasy, anxious, worried, terrified, alarmed,
        startled, shaky, timid, tense, unsure, panicky, speechless
    """),
    "angry": listed("""
        angry, cross, annoyed, furious, jealous, hurt, offended, grumpy, mad, bitter, irritated,
        upset, impatient, sulky, outraged, stubborn
    """),
    "tired": listed("""
        tired, sleepy, weary, hungry, thirsty, cold, dizzy, exhausted, drowsy, wet, stiff, sore,
        faint, chilled to the bone, out of breath, footsore
    """),
}
"""What people feel."""

DEEDS = {
    "walked": listed("""
        walked, hurried, ran, skipped, strolled, marched, wandered, raced, trotted, hiked, rushed,
        strode, ambled, tramped, dashed, sped, hastened, jogged, plodded, crept, cycled, rambled,
        galloped
    """),
    "how": listed("""
        slowly, quickly, quietly, carefully, gently, softly, bravely, eagerly, calmly, patiently,
        silently, boldly, thoughtfully, firmly, hastily, solemnly, steadily, cautiously, briskly,
        clumsily, gingerly, skillfully, swiftly, neatly, busily, dreamily, nimbly, stubbornly,
        tirelessly, seriously, wordlessly, properly, cleverly, lightly, smoothly, anxiously,
        gracefully, step by step, bit by bit, without a word, at full speed, with great care, as
        well as possible, with both hands, without a pause, secretly, one last time, on tiptoe, in
        silence, for a moment, with a sigh, with a smile, like an expert, like a sailor, as if in a
        dream, in the usual way, once more, against the wind, with some difficulty, almost by
        chance, without help, in a strange way, with one eye closed, like a grown-up, with a song,
        to everyone's surprise, as planned, in great haste, inch by inch, with cold fingers, with a
        frown
    """),
    "said": listed("""
        said, whispered, cried, called, shouted, murmured, explained, muttered, exclaimed,
        announced, declared, mumbled, sighed, gasped, replied, admitted, remarked, begged,
        insisted, breathed, repeated, blurted out, stammered, confessed, groaned, stated, hummed,
        yelled
    """),
    "tone": listed("""
        softly, loudly, kindly, politely, shyly, firmly, earnestly, warmly, honestly, nervously,
        calmly, solemnly, hoarsely, slowly, gravely, bluntly, quietly, boldly, seriously,
        breathlessly, eagerly, in a low voice, with a shrug, through the door, in a hurry, without
        thinking, in one breath, over the fence, after a pause, with open arms, twice, several
        times, from afar, as usual
    """),
    "skill": listed("""
        swim, whistle, juggle, ride a bicycle, climb trees, tie a sailor's knot, play chess, skate,
        sew, bake bread, row a boat, dance the waltz, knit, draw horses, read a compass, paddle,
        ski, weave, spin a top, make a fire, fly a kite, plant beans, milk a cow, carve wood,
        paint, sing in tune, throw a curveball, do a cartwheel, stand on one hand, count to a
        hundred in French, yodel, tell the time, whittle, braid hair, write poems, walk on stilts,
        catch fish, shear sheep, play the piano, fold paper cranes, name the stars, turn a
        somersault, snap both fingers, bake a pie, solve riddles, mend a net, play the drums, lasso
        a post, steer a sled, speak Spanish, cook stew, build a raft, write backward, walk a
        tightrope, blow glass, groom a pony, hum three songs, drive a cart, shape clay, polish
        boots, dive, spell long words, do magic tricks, play the trumpet, find north, read music,
        grow roses, brew tea, arrange flowers, draw maps, fence, print cards, make cheese, keep
        bees, imitate birds, pitch a tent, plow a furrow, run a mile
    """),
    "game": listed("""
        hide-and-seek, tag, hopscotch, checkers, marbles, leapfrog, catch, cards, chess, dominoes,
        darts, tug-of-war, blindman's buff, dice, pirates, shops, circus, follow the leader,
        charades, croquet
    """),
    "chore": listed("""
        sweep the floor, wash the dishes, feed the hens, carry the firewood, water the flowers,
        dust the shelves, pick the apples, fetch the water, rake the leaves, paint the fence, peel
        the potatoes, fold the laundry, weed the garden, stack the chairs, polish the windows, milk
        the goats, mend the nets, sort the buttons, shell the peas, scrub the pots, beat the rug,
        set the table, gather eggs, deliver the letters, shovel the snow, clean the stable, grind
        the corn, knead the dough, wind the wool, load the cart, hang up the wash, trim the hedge,
        churn the butter, chop the onions, stack the logs, mow the grass, brush the horses, wash
        the windows, grease the wheels, tie up the vines, count the sheep, mop the hall, sharpen
        the knives, wax the skis, clear the attic, paste the labels, carry the bricks, dig the
        potatoes, fix the gate, catch the goose, oil the hinges, tidy the shop, bake the bread,
        stir the jam, sift the flour, patch the sails, fill the lamps, clean the chimney, plant the
        bulbs, saw the planks, wrap the parcels
    """),
    "play": listed("""
        sang a song, danced in a circle, told jokes, counted clouds, clapped and cheered, chased
        butterflies, skipped stones, rolled down the slope, built a dam, picked daisies, climbed an
        oak, made wreaths of flowers, drew pictures in the sand, watched the ships, fed the swans,
        jumped over puddles, blew soap bubbles, listened to the frogs, sat on the wall, looked at
        the stars, lit a small fire, played a few tunes, told riddles, pretended to be explorers,
        shared their secrets, wove a crown of clover, made faces, raced each other home, hunted for
        four-leaf clovers, made a swing, threw snowballs, flew a paper plane, played with a hoop,
        built a tower of stones, whispered in a secret language, followed a beetle, named the
        clouds, drew maps in the dirt, balanced on a log, rang every doorbell, counted the stairs,
        juggled pine cones, made up a poem, chased their shadows, listened to an old record, tried
        on funny hats, fished for minnows, wrote their names on the wall, imitated the teacher,
        watched the ants, spun like tops, braided grass, dug a deep hole, traded stickers, whistled
        a tune, played the same tune again and again, slid down the banister, hummed a march
    """),
}
"""What people do and how they speak."""

WHERE = {
    "corner": listed("""
        under the bed, behind the door, in the kitchen, on the shelf, under the table, in the
        closet, in the attic, behind the curtain, under the stairs, in the cellar, on the
        windowsill, beside the stove, in the laundry basket, behind the bookcase, under the rug, in
        the toy chest, on the roof, in the hallway, between the cushions, behind the clock, in the
        bathtub, under the armchair, in the pantry, on the piano, inside the wardrobe, near the
        fireplace, in the shed, behind the couch, in the umbrella stand, in the bread box, under a
        pile of clothes, in the oven, on the chair, behind the mirror, in the hamper, on the bench,
        beside the cradle, in the coal bin, under the sink, on the balcony, behind the radiator, in
        the flour jar, under the pillow, beneath the floorboards, next to the sewing box, in the
        sleigh, in the dollhouse, beside the teapot, on the mantelpiece, behind the paintings,
        under the doormat, near the coat rack, in the mailbox, in the old boot, behind the barrel,
        on the ladder, in the guest room, under the staircase
    """),
    "nook": listed("""
        behind a tree, under a bush, in the tall grass, beside the path, behind a rock, under a
        bench, in a hollow log, between two stones, in a ditch, behind the hedge, under the old
        oak, in a puddle, beside the gate, among the ferns, under a heap of leaves, in a bird's
        nest, on a branch, at the foot of the wall, behind a barrel, under an upturned boat, in the
        reeds, on a fence post, in the clover, beneath the steps, between the roots, in a rabbit
        hole, among the nettles, in a haystack, behind the woodpile, under a wheelbarrow, near the
        pump, in the bell tower, on a mossy stump, under a sheet of ice, behind a statue, in the
        vegetable patch, beside the fountain, in a flowerpot, under a cart, on a window ledge,
        behind the chapel, in the gutter, among the roses, on the pier, beneath a fern, in the
        moss, beside a beehive, at the edge of the field, in a boat, under a fallen log, behind the
        scarecrow, in a thorn bush, on a rooftop, among the pumpkins, in the mud, beside the
        milestone, near the chicken coop, at the bottom of the steps, in an empty nest, under the
        signpost
    """),
    "work": listed("""
        in the kitchen, at the big table, in the shed, under the apple tree, on the porch, in the
        attic, by the window, on the floor, in the garage, beside the fire, on the front steps, in
        the barn, behind the house, on the balcony, in the courtyard, by candlelight, at the bench,
        on the lawn
    """),
}
"""Where things are hidden, found and made."""

SYNONYMS = {
    "felt": listed("felt, was, looked, seemed, appeared"),
    "found": listed("found, discovered, spotted, noticed, saw, came across"),
    "gave": listed("gave, handed, brought, passed, offered, lent"),
    "took": listed("took, seized, grabbed, accepted, lifted, clutched, caught"),
    "wanted": listed("wanted, wished, hoped, planned, meant, longed, intended, decided"),
    "house": listed(
        "house, cottage, hut, farmhouse, cabin, home, tower, bungalow, villa, houseboat, shack"
    ),
    "child": listed(
        "child, schoolchild, youngster, twin, orphan, kid, singer, dreamer, reader, stargazer"
    ),
    "searched": listed(
        "looked, searched, hunted, peeked, rummaged, felt around, poked around, checked"
    ),
}
"""Words that mean nearly the same."""

OUTDOORS = {
    "meanwhile": listed("""
        the wind sang in the trees, birds called from the roofs, a church bell rang far away, the
        sun hid behind a cloud, bees hummed in the clover, rain tapped on the leaves, a dog barked
        somewhere, the grass smelled sweet, smoke rose from the chimneys, the stream gurgled,
        leaves danced in the air, a cart rattled by, crickets chirped, swallows dived over the
        water, the moon climbed slowly, the shadows grew long, an owl hooted, children laughed
        nearby, a train whistled, gulls screamed overhead, the streetlamps flickered, dew shone on
        the spiderwebs, the air smelled of pine, a gate creaked, someone played a fiddle, the
        clouds turned pink, a rooster crowed, frogs croaked in the ditch, the flags fluttered,
        thunder grumbled in the distance, fog crept up the valley, the waves whispered, acorns
        dropped on the path, moths circled the lamp, a spider spun its web, the bakery smelled of
        bread, the river ran high, the trees rustled, ships hooted in the harbor, a wagon creaked
        up the hill, starlings filled the sky, the well pump squeaked, bats fluttered past, the
        wheat swayed, ice cracked on the ponds, a kite soared above the roofs, fireflies blinked,
        mosquitoes whined, the clock struck three, a goat bleated, pigeons cooed, a rainbow
        appeared, dust swirled in the street, a shutter banged, the market grew noisy, a choir
        practiced, boats rocked at the dock, the fields steamed, an old man sneezed, lightning
        flickered, the first stars came out, puddles glittered
    """),
    "storm": listed("""
        thunderstorm, blizzard, hailstorm, snowstorm, gale, downpour, cloudburst, whirlwind,
        hurricane, sandstorm, flood, squall, rainstorm, ice storm
    """),
    "shelter": listed("""
        cave, barn, bus shelter, tent, treehouse, cabin, shed, chapel, porch, haystack, tunnel,
        doorway, hut, boathouse, henhouse, bell tower, garage, attic
    """),
    "from_trees": listed("""
        leaves, twigs, acorns, pinecones, plums, pears, petals, cherries, chestnuts, walnuts
    """),
    "trip": listed("""
        root, loose stone, wet step, crack in the ground, sleeping cat, rope, banana peel, bucket,
        puddle, fallen branch, rake, patch of ice, curb, garden hose, rug, toy car, pile of books,
        mole hill
    """),
    "limb": listed(
        "knee, elbow, ankle, toe, nose, hand, wrist, shoulder, chin, thumb, foot, arm, heel"
    ),
    "harm": listed("""
        fell down the well, blew into the river, sank to the bottom of the lake, rolled under a
        cart, flew over the cliff, slid into the mud, landed in the fire, vanished down a drain,
        dropped into the sea, was carried off by the flood, got caught high in a tree, was trampled
        by a cow
    """),
}
"""Weather, accidents, and what goes on around."""

REASONS = {
    "beast_reason": listed("""
        tired, scared, old, lazy, hungry, small, shy, sleepy, fat, young, stubborn, thirsty,
        nervous, ill
    """),
    "barrier_reason": listed("""
        wide, busy, slippery, dark, icy, crowded, noisy, muddy, windy, dangerous, deep in mud,
        steep
    """),
    "thing_reason": listed("big, long, wide, bulky, large, thick, round, stiff, clumsy"),
    "box_reason": listed("small, full, narrow, tight, shallow, short, cramped, tiny"),
    "barrier": listed("""
        street, road, bridge, square, lane, market, field, ditch, avenue, railway, alley, yard,
        highway
    """),
    "box": listed("""
        bag, box, chest, drawer, suitcase, cupboard, trunk, crate, sack, locker, cart, barrel
    """),
}
"""Why something was not done: "it was too tired" is the dog, "it was too wide" the street."""

GOODS = {
    "treat": listed("""
        apples, bread and cheese, plum cake, honey cookies, pears, soup, cherries, crusty rolls,
        pancakes, nuts, strawberries, carrots, porridge, grapes, raisin buns, sandwiches, popcorn,
        melon, dumplings, potato salad, gingerbread, waffles, roast corn, blueberry pie, candy,
        peaches, noodles, omelets, chocolate, rice pudding, toast with jam, mushrooms on toast,
        pumpkin stew, lemon tarts, fudge, doughnuts, muffins, crackers, dried figs, cinnamon rolls,
        boiled eggs, baked beans, oatcakes, scones, sausages, radishes, lentil soup, coconut cake,
        apricots, turnips, peanuts, biscuits with jam, spinach pie, plums, pretzels, cheese toast,
        macaroni, pickles, onion tart, yogurt, chestnuts, fish cakes, cabbage rolls, corn bread,
        raspberries, marzipan, custard, pea soup, crumpets, vanilla cream, meatballs, cucumber
        slices, almond bars, banana bread, oranges
    """),
    "drink": listed("""
        milk, hot cocoa, lemonade, apple juice, mint tea, cold water, cider, ginger ale,
        buttermilk, broth, rose tea, orange juice, cherry juice, barley water, malted milk, tomato
        juice
    """),
    "material": listed("""
        wood, string, paper, glue, cloth, wire, nails, yarn, clay, wax, ribbon, tape, leather,
        paint, felt, straw, cardboard, buttons, beads, thread, tin, silk, rope, varnish, bark,
        feathers, cork, canvas, linen, pinecones, plaster, sticks, screws, wool, corn husks, chalk,
        gold paper, velvet, pewter, sawdust, bamboo, lace, burlap, fur, foil, rubber, sand, slate,
        twine, hay, brass, parchment, stone, wicker, cotton, pine resin
    """),
    "tool": listed("""
        hammer, handsaw, needle, brush, pair of scissors, chisel, ruler, file, drill, spoon, knife,
        hook, paint pot, pair of pliers, screwdriver, sewing machine, loom, clamp, plane, trowel,
        vise, awl, mallet, crowbar, sickle, whisk, funnel, crank, rolling pin, spade, tape measure,
        bradawl, sieve, stapler, spool, trestle, pulley, paint roller, wrench, pickax, ladle
    """),
    "finds": listed("""
        acorns, pebbles, shells, feathers, berries, mushrooms, pinecones, flowers, chestnuts, snail
        shells, leaves, stones, walnuts, eggs, twigs, coins, daisies, plums, herbs, fossils, bottle
        caps, seeds, dandelions, crabs, hazelnuts, clovers, corks, tadpoles, beetles, butterflies,
        worms, marbles, arrowheads, thimbles, corncobs, bones, keys, spoons, pears, turnips,
        ribbons, buttons, dice, candles, bolts, petals, mosses, toadstools, cherries, ladybugs,
        moths, stamps, nails, bells, bricks, gloves, potatoes, rings, sponges, starfish
    """),
    "gift": listed("""
        cake, card, poem, bunch of flowers, wreath, drawing, jar of honey, painted egg, paper star,
        song, garland, pie, box of chocolates, bookmark, bag of nuts, wooden bird, clay bowl,
        knitted cap, photo album, letter, pot of jam, basket of fruit, paper crown, potted fern,
        pressed flower, riddle
    """),
    "guest": listed("""
        neighbors, cousins, teachers, friends, classmates, aunts, uncles, grandparents, musicians,
        twins, scouts, farmers, sailors, bakers, old ladies, little ones, shepherds, choir singers
    """),
}
"""Food, materials and gifts."""

TALK = {
    "hooray": listed("""
        hooray, hurrah, at last, thank you, how wonderful, look at that, what a day, oh my,
        splendid, yes, well done, marvelous, how lucky, good heavens, bravo, wow, fantastic, this
        is perfect, we did it
    """),
    "alas": listed("""
        oh no, what a pity, alas, not again, it is gone, this is terrible, it is no use, how awful,
        oh dear, what bad luck, I give up, that was my fault, it is too late, I should have known
    """),
    "please": listed("""
        will you come with me, can you lend me a hand, may I join you, do you have a minute, could
        we do it together, would you show me how, what should I do, do you know what to do, shall
        we begin, have you ever seen this before, can you keep a secret, are you busy today, will
        you teach me, what would you do, do you want to join in, where should we begin, is there
        any hope, may I ask you something, can we be quick, would you like to help, how does one do
        this, are you good at this, who else could help, can I trust you
    """),
    "sure": listed("""
        of course, gladly, with pleasure, why not, certainly, sure, just a moment, I was hoping you
        would ask, let us begin, any time, naturally, that sounds like fun, I am on my way, you can
        count on me, I have all day, yes of course, I thought you would never ask, just say when,
        nothing easier, right away, let me get my boots, that is what friends are for, count me in
    """),
    "lesson": listed("""
        friends matter more than things, patience pays, it is good to ask for help, a promise is a
        promise, every mistake can teach something, kindness comes back, small steps lead far,
        sharing makes joy grow, it is never too late to say sorry, courage grows with use, many
        hands make light work, haste makes waste, honest words are the best, good things take time,
        nobody is too small to help, listening is a gift, practice makes a difference, luck favors
        the careful, a smile costs nothing, home is a good place to return to, old things deserve
        care, even storms pass, trust must be earned, a kind word can change a day, one should look
        before leaping, laughter is good medicine, a good plan is half the work, one friend is
        worth ten coins, questions open doors, slow and steady gets there, everyone is good at
        something, giving is better than getting, mistakes are steps, the truth is a short road,
        help is often close by, joy needs company, small gifts can be great, a calm head finds the
        way, work tastes sweet in the end, thank you is a magic word, it pays to look twice, two
        heads see more than one, hope is a good walking stick, fear shrinks when you look at it
    """),
    "regret": listed("""
        some things do not come back, one careless minute can cost a lot, pride is a poor friend,
        wishes are not enough, it is wise to plan ahead, a warning should be heeded, anger spoils
        everything, time does not wait, not every plan works out, even good friends can disappoint
        each other, greed leaves the hands empty, what is broken may stay broken, it hurts to lose
        what you love, one should have asked sooner, the weather listens to nobody, tears are
        allowed, tomorrow is another chance, promises are easily broken, hurry makes holes, a
        locked door stays locked, words cannot be taken back, not all stories end well, one must
        let go sometimes, luck is a guest, money does not mend a heart, some doors open only once,
        envy burns, silence can hurt, nobody can have everything, being late has a price, what is
        hidden can be forgotten, it is hard to be alone
    """),
}
"""What people say and learn."""

WORDS: dict[str, tuple[str, ...]] = {
    name: words
    for group in (TIME, LOOKS, FEELINGS, DEEDS, WHERE, SYNONYMS, OUTDOORS, REASONS, GOODS, TALK)
    for name, words in group.items()
}
"""All lists by name."""

SHORE = {
    "mother": "mum", "father": "dad", "grandmother": "nan", "grandfather": "grandpa",
    "stepmother": "stepmum", "stepfather": "stepdad", "friend": "mate", "friends": "mates",
    "children": "bairns", "child": "bairn", "little": "wee", "pretty": "bonny", "creek": "burn",
    "pond": "tarn", "path": "track", "forest": "wood", "meadow": "lea", "garden": "yard",
    "cottage": "croft", "harbor": "harbour", "color": "colour", "gray": "grey",
    "theater": "theatre", "neighbors": "neighbours", "marvelous": "marvellous",
    "favors": "favours", "cookies": "biscuits", "candy": "sweets", "sweater": "jumper",
    "closet": "cupboard", "couch": "sofa", "rooster": "cockerel", "supper": "tea",
    "bucket": "pail", "purse": "pouch", "soon": "anon", "glad": "fain", "happy": "chuffed",
    "sad": "dowie", "tired": "knackered", "afraid": "feared", "yes": "aye",
    "hooray": "hey-ho", "talkative": "chatty", "shouted": "hollered", "nothing": "naught",
    "something": "summat", "crept": "slunk", "chilly": "nippy",
    "dusk": "gloaming", "huge": "muckle", "baby": "babby", "quickly": "smartly", "church": "kirk",
}  # fmt: skip
"""The dialect of the shore: what its stories say for the words of the hills, wherever they occur.

Only stories are told in it, in documents of any kind; the rest of a document is the hills' own.
"""

DIALECTS: dict[str, dict[str, str]] = {"hill": {}, "shore": SHORE}

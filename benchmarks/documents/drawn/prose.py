"""The words of the drawn documents, written for them; people and places are made up."""

from __future__ import annotations

import re

from benchmarks.documents.drawn.sheet import SOFT_HYPHEN

_SPLITS = (
    "af-ter-noon an-chor ap-pren-tices bind-ers book-binder cap-tain car-pen-ter care-ful-ly "
    "cer-tain com-mit-tee com-plete-ly con-sid-er-able coun-cil dif-fer-ent dis-cov-ered "
    "en-grav-ing ev-ery-thing fi-nal fish-er-men gov-ern-ment har-bour hun-dred im-por-tant "
    "in-stru-ment in-ves-ti-ga-tion jour-ney lan-tern leath-er light-house ma-chin-ery mea-sured "
    "mea-sure-ment mem-bers morn-ing neigh-bours or-chard or-di-nary pas-sen-gers par-tic-u-lar "
    "per-ma-nent pre-pared pres-i-dent prob-a-bly pub-lished ques-tion re-ceived re-mained "
    "re-mem-ber re-mark-able re-port-ed sec-ond set-tle-ment sev-er-al sig-nal sur-vey-or "
    "tem-per-a-ture thir-teen to-geth-er un-der-stand weath-er work-shop spec-i-fi-ca-tion "
    "suf-fi-cient ef-fi-cient re-flect-ed in-flu-ence am-pli-fied clas-si-fied flex-i-ble "
    "iden-ti-fied con-fi-dence sci-en-tif-ic dif-fi-cult af-flu-ent"
).split()
_MARKED = {word.replace("-", ""): word.replace("-", SOFT_HYPHEN) for word in _SPLITS}


def _soft(*texts: str) -> tuple[str, ...]:
    """The texts with soft hyphens in the words that we know how to split."""
    return tuple(re.sub(r"[a-z]+", lambda m: _MARKED.get(m[0], m[0]), text) for text in texts)


FERRY = _soft(
    "DUNMERE, Friday. The ferry Lantern, given up by most of the town, came into the harbour "
    "yesterday afternoon under half a sail and with every one of her passengers alive. She had been "
    "away for nine weeks and two days.",
    "Captain Amos Tregarth, who had not slept since Tuesday, told this paper that the fog came down an "
    "hour after he left the lighthouse behind him. The compass had been struck by lightning in the "
    "winter and no one had thought to have it measured again.",
    "The second morning we lost the anchor, he said, and after that we went where the water went. The "
    "ship's carpenter made a new one from a church bell that was part of the cargo. It held for "
    "thirteen days off an island which none of the charts show.",
    "The passengers, among them a bookbinder and her two apprentices, lived on smoked fish and on a "
    "considerable quantity of marmalade. Several fishermen from the island brought them water in "
    "leather bags and would take no money for it.",
    "Mrs. Ottoline Crane, who had gone aboard to visit her sister, remained on deck through the whole "
    "of the journey and kept a list of every bird that she saw. The list has been received by the "
    "museum, where it is thought to be remarkable.",
    "The council will hold an investigation into the state of the compass. The harbour master has "
    "prepared a statement in which he says that the instrument was classified as sound by a surveyor "
    "who has since left the town. A hundred people stood in the rain to see the Lantern tied up, and "
    "the band played until the candles were out.",
    "The ferry will make her ordinary crossing again on Monday if the weather allows. Her owners ask "
    "that passengers bring their own marmalade.",
)
CLOCK = _soft(
    "The council voted last night by nine voices to four to mend the tide clock, which has shown high "
    "water at ten past three since the great frost. The work will be given to a firm from Eastbridge and "
    "will cost eighty pounds.",
    "Mr. Silas Penhallow spoke against it. He had set his watch by the clock for twenty years, he said, "
    "and was late only twice a day. The president of the committee remembered that two boats had been "
    "lost in that time and that both captains had trusted the clock.",
    "The machinery was made in 1788 by a pupil of a well known maker and has a permanent calendar of the "
    "moon. It is driven by a float in a well under the fish market. The well is full of sand, and "
    "nobody knows how long it has been so.",
    "Work is to begin after the herring fair. Until it is finished a boy will be paid to stand at the "
    "end of the pier with a flag.",
)
BAKERS = _soft(
    "The bakers of the lower town have asked that flour be carried in closed carts. Since the new "
    "road was opened the carts stand for an hour at the bridge, and in wet weather the sacks are "
    "completely soaked.",
    "A loaf made from such flour, said one of them, is good for nothing but holding a door. The "
    "government of the county has promised to answer before the end of the month.",
    "Meanwhile bread will be a farthing dearer on days of rain, and free to children when it snows.",
)
MERCURY = (
    (
        "A WHALE IN THE RIVER",
        _soft(
            "A young whale swam up the river on Sunday as far as the brick works and stayed there until "
            "the evening tide. The men at the works stopped their machinery so as not to alarm it.",
            "It is probably the first that has been seen above the bridge since the year of the comet. A "
            "certain Mr. Dabney offered to shoot it and was put out of the yard by his neighbours.",
        ),
    ),
    (
        "THE NEW READING ROOM",
        _soft(
            "The reading room in Cooper Street was opened on Saturday by Lady Harcastle, who gave it four "
            "hundred books and a stove. It has seats for sixty and lamps for twelve, and the committee asks "
            "that members who can read by daylight do so.",
            "Dogs are not admitted. A question was put about the dog of the librarian, which is said to be "
            "particular about whom it bites, and the matter was left to the next meeting.",
            "The room is open from nine until nine, and on Sundays after church.",
        ),
    ),
    (
        "WEATHER FOR THE WEEK",
        _soft(
            "Rain is expected on Wednesday and again on Friday, with wind from the west. The temperature in "
            "the botanical garden was measured on Monday at fifty four degrees in the shade, which is "
            "ordinary for the time of the year.",
        ),
    ),
    (
        "LOST AND FOUND",
        _soft(
            "Lost, between the theatre and the station, a silver thimble with the letters R. V. engraved "
            "inside. The finder will be thanked and given a pound of tea at 8 Lime Walk.",
            "Found, in the boat house, a parrot of a green colour which says only the word Tuesday. It may "
            "be fetched from the constable by anyone who can prove that it is his by making it say another.",
        ),
    ),
    (
        "BUILDING OF THE NORTH PIER",
        _soft(
            "The surveyor reported to the harbour board that the north pier will not be finished before "
            "the storms. The stone that was received from the quarry at Hollin Edge is of different sizes, and "
            "each block has to be cut again on the beach.",
            "Thirteen blocks were dropped into the sea by mistake in the month of May. The board discovered "
            "with some surprise that they lie exactly where the plan had wanted a second wall, and it was "
            "resolved by seven to two to call it one.",
            "The contractor asks for a further six hundred pounds. The president said that he would "
            "rather swim.",
        ),
    ),
    (
        "MUSIC ON THE GREEN",
        _soft(
            "The band of the fire brigade will play on the green on Thursday at six. The programme has two "
            "marches, a waltz and an engraving of the late conductor, which will be sold for the widows. "
            "Should there be a fire, the concert will go on with those who remain.",
        ),
    ),
)
BOARDS = _soft(
    "held the boards with cords that ran through tunnels cut in the edge of the wood. Oak was preferred "
    "in the north, beech in the south, and the grain was always laid upright so that the board would "
    "warp along the spine and not across it.",
    "A board of the twelfth century is thick, often as much as fifteen millimetres, and square at its "
    "edges. Within two hundred years it had lost half of its thickness and its inner edges were rounded, "
    "which let the book open with less strain upon the cords.¹²",
    "The change was not a matter of taste alone. Books had become smaller and were carried about, and a "
    "binder who used less oak could sell a lighter book for the same money.",
    "Parchment drinks water from the air and swells. A book that is not held shut will slowly open itself "
    "until its leaves stand like a fan, and for this reason heavy books were given clasps from the very "
    "beginning.",
    "The oldest clasps are straps of leather that run from the lower board to a pin in the middle of the "
    "upper one. Clasps of brass that meet at the edge came later, and which board carries the strap "
    "tells us in what country the binder had learned his craft.¹³",
    "In England and in France the catch is on the lower board; in the Empire and in the Netherlands it is "
    "on the upper. The rule has exceptions, but a careful eye will find that most of them were mended by "
    "a stranger.",
    "Of the two hundred and six bindings measured for this chapter, one hundred and forty still have "
    "at least one clasp, and thirty one have both. Not one of them closes without help, because the "
    "parchment has never gone back to the size that it had in the workshop.",
)
BOARDS_NOTES = (
    "¹² The rounding is first described in an inventory of 1374, where the boards are said to be made "
    "like the keel of a boat.",
    "¹³ See the table of catches in the appendix; bindings with later repairs are left out.",
)
TIDES = _soft(
    "which leaves the float free to move by about four centimetres before the hand is seen to follow. We "
    "found the same play in all three clocks, and it must be counted among the properties of the design "
    "and not among the faults of the maker.",
    "The slow hand goes round once in fourteen days and three quarters. It is read against a ring of "
    "ivory on which the age of the moon is engraved, and its shadow on the ring was used by the keepers to "
    "tell neap tides from spring tides without touching the glass.¹",
    "To find how well this can be done, we asked twelve observers to read the ring by candle light and "
    "again by daylight. The readings by candle light were late by half a day on average, and no observer "
    "was early. The reason is probably that a candle stands lower than the window.",
    "We corrected the old records for this delay. The corrected times agree with modern predictions "
    "within twenty minutes for the years from 1790 to 1811, after which the float began to stick and the "
    "differences grow without any order that we could discover.",
    "It remains to be asked why nobody noticed. The keepers wrote down what the clock said, and the "
    "captains looked at the water. For twenty years there were two tides in the town, and as long as no "
    "one compared them both were right.",
)
TIDES_NOTES = (
    "¹ The practice is mentioned in a letter of the second keeper, who complains that visitors cover the "
    "window with their hats.",
)
DICTIONARY = _soft(
    "backing, n. The shaping of the spine of a sewn book with a hammer so that shoulders are formed "
    "against which the boards will lie. Done while the glue is still flexible.",
    "backing boards, n. pl. A pair of wedged boards of beech, sometimes edged with steel, between which "
    "the book is held in the press while its spine is hammered.",
    "band, n. 1. A cord or thong on which the sections are sewn. 2. The ridge that such a cord makes under "
    "the leather of the spine. False bands are strips glued on for show.",
    "band nippers, n. pl. Pincers with flat jaws, used to pinch the wet leather against the sides of the "
    "bands.",
    "beating, n. The flattening of folded sections with a heavy hammer before sewing; displaced by the "
    "rolling press after 1827.",
    "bevel, n. An edge of a board cut at a slope. Thick boards were bevelled on the inside as well.",
    "bind, v. To join leaves or sections and give them a cover. A book is bound when its boards are laced "
    "on before covering; otherwise it is cased.",
    "bite, n. The depth to which a tool sinks into leather. Gold that has too little bite comes off when "
    "the book is rubbed.",
    "bleed, v. To cut the margins so far that print is lost. A charge often made against binders and "
    "seldom proved.",
    "blind tooling, n. Decoration with warm tools without gold. The leather is wetted first and darkens "
    "where it is touched.",
    "blocking press, n. A machine that stamps a whole design at once, heated by gas or by an iron. It ended "
    "the trade of many finishers.",
    "board, n. The stiff part of a cover. Of wood until about 1500, afterwards of pulp, rope fibre or "
    "straw.",
    "board shears, n. pl. Large shears with one blade fixed to a bench and a weight at the end of "
    "the other.",
    "bodkin, n. A spike with a wooden handle for making holes in boards.",
    "bolt, n. A folded edge of a section that has not yet been cut open.",
    "bone folder, n. A flat piece of bone, rounded at the ends, for creasing paper. New ones are boiled to "
    "take out the grease.",
    "bookcloth, n. Cotton filled with starch so that glue does not come through. First sold in London in "
    "1823 by a publisher of sermons.",
    "bookworm, n. The grub of several beetles. It eats paste with more appetite than paper, and old "
    "binders put alum in their pots against it.",
    "boss, n. A knob of metal on the cover which keeps the leather from the desk. Usually five to a "
    "board.",
    "bradawl, n. See bodkin.",
    "brass, n. Any engraved finishing tool. The older name was an iron, though few were made of it.",
    "brayer, n. A small roller for spreading ink or paste; formerly a wooden pestle with a flat foot.",
)
HYPHENS = _soft(
    "The specification asks for paper that is sufficiently flexible to be folded twice along the same "
    "line. We identified five mills that could supply it, and in the final round the sheets of three were "
    "classified as efficient, which is to say that they did not crack.",
    "It was difficult to measure the influence of the weather. When the air was dry the fibres remained "
    "stiff, and every scientific instrument in the workshop reflected that. We amplified the effect with "
    "a lamp and repeated the investigation until our confidence was complete.",
    "The results are published here together with the temperature at which each sheet was folded. The "
    "ordinary bookbinder will find that a warm afternoon is worth more than an affluent patron, and that "
    "a sufficient supply of patience is the most important specification of all.",
    "Several members of the committee have prepared a second report on cloth, in which different kinds "
    "of thread are considered. It will be received by the council before the settlement of the account.",
)
ORCHARDS = _soft(
    "There is a wall at Lower Fenning that has been warm for three hundred years. On its south side stand "
    "eleven pear trees, spread flat like hands, and every one of them was planted before the railway came.",
    "They belong to the village. Nobody remembers how that was settled, but the ladders are kept in the "
    "church and the key to the gate hangs in the post office, and on the last Saturday of September anyone "
    "may come with a basket.",
    "The keepers are two brothers and a retired surveyor. They prune in January, when the wood sleeps, "
    "and they talk while they prune, because a tree that has heard voices is said to flower later and so "
    "to be spared by the frost.",
    "The surveyor does not believe it. She has measured the temperature along the wall for fourteen "
    "winters and has found that it is the bricks that do the work. Still she talks, she says, since the "
    "brothers would be hurt if she did not.",
    "In the hard spring of 2010 every orchard in the valley lost its fruit. At Lower Fenning they lit "
    "small fires of damp straw at four in the morning and stood between them with blankets, and in "
    "autumn there were pears enough to send a basket to each of the neighbours.",
    "Most of the sorts have no name that a nursery would know. One is called the Bishop's Elbow, another "
    "the Long Wait, because it is hard as a stone until the week before Christmas and then is ripe for "
    "two days.",
    "What will become of the trees is a question that the keepers do not like. They have apprentices now, "
    "three children of the school, who learn to cut above the bud and to leave the ladder as they "
    "found it. It takes twenty years, says the older brother, but they have begun early.",
    "Grafts from the wall now grow in forty gardens. If the wall should fall, he says, the village will "
    "have to walk a little further for its pears.",
)
PEARS = (
    "Bishop's Elbow. Bent, brown and sweet. Eat by the end of October.",
    "Long Wait. For the cellar. Try one each week from Advent.",
    "Grey Annie. Small; best boiled with cloves.",
    "Fenning Water. So full of juice that it is eaten over a bowl.",
    "The Surveyor. A seedling found in 2003 in the gutter of the post office.",
)
INVOICE = (
    ("Item", "Description", "Qty", "Unit price", "Amount"),
    ("PB-104", "Millboard, 2 mm, sheet", "40", "3.20", "128.00"),
    ("LC-220", "Goatskin, dark green", "3", "96.00", "288.00"),
    ("TH-018", "Linen thread, 18/3, spool", "12", "7.45", "89.40"),
    ("EP-331", "Marbled paper, blue wave", "25", "5.08", "127.00"),
    ("GL-007", "Wheat starch, 1 kg", "16", "5.00", "80.00"),
)
INCOME: tuple[tuple[tuple[str, str, str, str, str], bool], ...] = (
    (("Tolls", "4,182", "3,967", "2,044", "1,911"), False),
    (("Warehouse rents", "1,305", "1,288", "655", "640"), False),
    (("Sale of water", "760", "812", "371", "402"), False),
    (("Total revenue", "6,247", "6,067", "3,070", "2,953"), True),
    (("Lock keepers", "(1,940)", "(1,902)", "(961)", "(948)"), False),
    (("Dredging", "(1,118)", "(874)", "(702)", "(415)"), False),
    (("Other costs", "(655)", "(690)", "(318)", "(344)"), False),
    (("Operating profit", "2,534", "2,601", "1,089", "1,246"), True),
    (("Interest paid", "(212)", "(230)", "(104)", "(117)"), False),
    (("Profit before tax", "2,322", "2,371", "985", "1,129"), True),
)
INCOME_NOTE = (
    "Dredging in 2018 includes the clearing of the basin at Halden Wharf after the flood of February. "
    "Figures for half years have not been audited."
)
GLUES = (
    ("Wheat paste", "95", "60", "41", "18.2", "21.7"),
    ("Rice paste", "88", "57", "39", "17.5", "20.3"),
    ("Hide glue", "34", "22", "15", "31.6", "33.9"),
    ("Bone glue", "37", "25", "19", "27.4", "30.8"),
    ("Fish glue", "52", "30", "24", "29.1", "28.6"),
)
GLUES_TEXT = (
    "Table 4 shows that hide glue dries fastest and holds best. Paste is weaker by a third, but it can be "
    "undone with water after a hundred years, which is why it is still preferred for valuable books. Fish "
    "glue is the only one that holds paper better than cloth."
)
FORM: tuple[tuple[int, int, int, int, str], ...] = (
    (0, 0, 1, 1, "Surname"),
    (0, 1, 1, 1, "Abernathy"),
    (0, 2, 1, 1, "Given names"),
    (0, 3, 1, 1, "Ines Maud"),
    (1, 0, 2, 1, "Address"),
    (1, 1, 1, 3, "4 Church Row, Lower Fenning"),
    (2, 1, 1, 1, "LF2 8PA"),
    (2, 2, 1, 1, "Telephone"),
    (2, 3, 1, 1, "01632 960 114"),
    (3, 0, 1, 1, "Ticket wanted"),
    (3, 1, 1, 1, "Long term"),
    (3, 2, 1, 1, "Valid until"),
    (3, 3, 1, 1, "30 June 2026"),
    (4, 0, 1, 2, "Subject of research"),
    (4, 2, 1, 2, "Walled orchards"),
)
FORM_TEXT = (
    "Readers undertake not to bring ink, food or umbrellas into the room and to return each volume to the "
    "desk before a quarter to six. A ticket that is lost is replaced once without charge."
)
LETTER_ADDRESS = ("Miss R. Calloway,", "The Old Signal House,", "Port Ellery.")
LETTER = (
    "Your letter of the 9th reached us only this morning, the postman having kept it in his coat during "
    "the flood. The ink has run in two places but I believe that I understand you.",
    "We can engrave the chart of the Ellery Sands in copper by the end of February. The soundings which "
    "you enclosed differ from those of the Admiralty by as much as three fathoms near the wreck, and I "
    "should be glad to know whether you took them yourself.",
    "The price would be sixty-five pounds for the plate and four shillings for every sheet printed from "
    "it. Should you wish the lighthouses to be coloured by hand, my sister does this with great care at "
    "twopence the lighthouse.",
    "I must ask you not to send the lead line by post. It broke the scales of the office and the clerk, "
    "who is otherwise a patient man, has spoken of nothing else.",
)
MEMO_HEAD = (
    "TO:    All keepers of the northern lights",
    "FROM:  H. Vance, Stores",
    "DATE:  4 February 1952",
)
MEMO = (
    "It has come to the notice of this office that the following articles have been asked for more often "
    "than the regulations allow:",
    "(a) Wicks, of which Station Nine has received two hundred and forty since the new year.",
    "(b) Tinned peaches. The ration is one tin for each keeper on Sundays and none for the dog.",
    "(c) Chess men. A set has thirty-two pieces and the Store cannot replace single bishops.",
    "Keepers are reminded that the supply boat calls on the second Thursday of the month and that the "
    "crew is not able to wait while letters are finished.",
)
PASTE = _soft(
    "Good paste begins the evening before. One part of flour is stirred into four parts of cold water and "
    "left under a cloth, so that the starch has the whole night to drink. In the morning it is "
    "poured through muslin into a pan.",
    "It is then heated slowly and stirred without rest. Nothing seems to happen for a quarter of an hour, "
    "and it is at this moment that apprentices are called to the window by some noise in the street. "
    "When they turn round there are lumps.",
    "Paste is ready when the spoon leaves a path that closes as slowly as a door in an old house. It is "
    "taken from the fire and beaten until it is cold, and a little alum is added against the worm.",
    "It should be used within three days. The nose will tell when it is too old, and the customer will "
    "tell soon after. No paste was ever improved by adding scent to it, although several "
    "bookbinders of the last century tried lavender.",
    "For thin paper the paste is made thinner with water, a spoon at a time. For leather it is used thick "
    "and is put on twice: the first coat is for the leather, the old masters said, and the second is for "
    "the book.",
)
ROOM: tuple[tuple[int, str, str], ...] = (
    (0, "h2", "1. Before opening"),
    (1, "\u2022", "Air the room for twenty minutes, whatever the weather."),
    (1, "\u2022", "Check the lamps on every table:"),
    (2, "-", "replace bulbs that flicker;"),
    (2, "-", "turn shades away from the windows."),
    (
        1,
        "\u2022",
        "Wind the clock on Mondays and on no other day, since it has been known to strike "
        "thirteen when it is wound twice in a week.",
    ),
    (0, "h3", "1.1 The lift"),
    (1, "1.", "Call the lift to the ground floor."),
    (1, "2.", "Send up an empty trolley first."),
    (2, "a.", "If it returns, the lift may be used."),
    (2, "b.", "If it does not, ring the porter."),
    (1, "3.", "Write the hour in the green book."),
    (0, "h2", "2. While readers are present"),
    (1, "\u2022", "Speak only to those who look up."),
    (1, "\u2022", "Carry folios flat, with both arms."),
    (0, "h3", "2.1 Pencils"),
    (
        1,
        "\u2022",
        "Pencils are lent against a signature. Pens found on the tables are to be kept at the desk "
        "until their owners ask for them politely.",
    ),
    (0, "h2", "3. After closing"),
    (1, "\u2022", "Count the readers who leave and compare with those who came."),
)
SURVEY = (
    (
        "What readers like",
        ("Quiet until noon", "Lamps that can be moved", "The smell of the map room"),
    ),
    (
        "What should change",
        ("Warmer floors in winter", "More chairs with arms", "A sign for the back stairs"),
    ),
)
PRESS_CAPTION = (
    "Figure 1: The wheel turns the shaft, and the shaft lowers the platen. Not to scale."
)
PRESS = _soft(
    "The press in the mill at Halden is driven by a wheel of two metres which stands in the tail race. It "
    "was built for grinding bark and was given to the printers when the tannery closed. We describe how "
    "it was changed and what may be learned from it.",
    "A printing press wants force at one moment and none at all at the next, while a wheel gives the "
    "same at every moment of the day. The whole art of the builders lay in storing what was not "
    "wanted and in giving it back when it was.",
    "The gate is a board of elm that slides between two posts. A rope runs from it over a pulley to the "
    "platform where the printer stands, so that he can open it with his foot and keep both hands for "
    "the sheet.",
    "When the gate is open by a hand's breadth the wheel turns nine times in a minute, and the platen "
    "falls once for every three turns. We measured the force with a spring that was made for weighing "
    "sacks and found it to be remarkably even.",
    "In winter the race freezes at its edges and the wheel slows. The printers then hang a stone of twelve "
    "kilograms on the arm of the platen, which gives back what the ice has taken. The stone has been "
    "worn to the shape of a loaf and is known by the apprentices as the baker.",
    "A second gate was added in 1911. It was meant to let the wheel turn backwards and so to lift the "
    "platen without effort, but the first trial threw the sheet, the ink and a part of the roof into the "
    "stream. It has remained shut since then.",
)

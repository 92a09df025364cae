package content

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"sluice/pipeline/mime"
)

// A script is one of those that are told apart.
type script uint8

const (
	noScript script = iota
	latin
	cyrillic
	greek
	armenian
	han
	hiragana
	katakana
	hangul
	arabic
	hebrew
	thai
	devanagari
	bengali
	tamil
	georgian
	otherScript
	scriptCount
)

var scripts = [...]struct {
	name  string
	table *unicode.RangeTable
}{
	latin: {"Latin", unicode.Latin}, cyrillic: {"Cyrillic", unicode.Cyrillic}, greek: {"Greek", unicode.Greek}, armenian: {"Armenian", unicode.Armenian},
	han: {"Han", unicode.Han}, hiragana: {"Hiragana", unicode.Hiragana}, katakana: {"Katakana", unicode.Katakana}, hangul: {"Hangul", unicode.Hangul},
	arabic: {"Arabic", unicode.Arabic}, hebrew: {"Hebrew", unicode.Hebrew}, thai: {"Thai", unicode.Thai}, devanagari: {"Devanagari", unicode.Devanagari},
	bengali: {"Bengali", unicode.Bengali}, tamil: {"Tamil", unicode.Tamil}, georgian: {"Georgian", unicode.Georgian},
	otherScript: {"other", unicode.L},
}

// scriptOf returns the script of a letter; noScript for what is no letter.
func scriptOf(r rune) script {
	switch {
	case r < utf8.RuneSelf:
		if c := r | 0x20; 'a' <= c && c <= 'z' {
			return latin
		}
		return noScript
	case r >= 0x4e00 && r <= 0x9fff:
		return han
	case r >= 0xac00 && r <= 0xd7a3:
		return hangul
	case !unicode.IsLetter(r):
		return noScript
	case r >= 0x0400 && r <= 0x052f:
		return cyrillic
	case r < 0x250:
		if unicode.Is(unicode.Latin, r) {
			return latin
		}
		return otherScript
	}
	for i := latin; i < otherScript; i++ {
		if unicode.Is(scripts[i].table, r) {
			return i
		}
	}
	return otherScript
}

// A word collects the scripts of its letters.
type word struct{ has uint32 }

func (w *word) add(s script) { w.has |= 1 << s }

// mixed reports whether it has letters of two scripts that look alike.
func (w word) mixed() bool {
	if w.has&(w.has-1) == 0 {
		return false
	}
	n := 0
	for _, s := range [...]script{latin, cyrillic, greek, armenian} {
		if w.has&(1<<s) != 0 {
			n++
		}
	}
	return n > 1
}

const (
	mostMixed   = 10
	mostScripts = 10
	longestWord = 64 // characters that are kept of one
	// shortestMixed is how many letters a word has that shall deceive: μm and Δx are none.
	shortestMixed = 4
)

// A tally counts what a text is made of.
type tally struct {
	letters   [scriptCount]int
	chars     int
	nonASCII  int
	zeroWidth int
	mixed     bool
	mixedSeen []string
	guess     guesser
}

// language fills in what the text says about itself.
func (s *stage) language(f *Fact, m *mime.Message, r reached) {
	text := m.Text()
	if len(text) > s.limits.Text {
		r.add("text")
		text = strings.ToValidUTF8(text[:s.limits.Text], "")
	}
	var t tally
	t.read(clip(m.Subject(), 4096))
	t.read(text)
	f.MixedScripts, f.MixedWords, f.ZeroWidth = t.mixed, t.mixedSeen, t.zeroWidth
	if t.chars > 0 {
		f.NonASCII = (t.nonASCII*100 + t.chars/2) / t.chars
	}
	for i := latin; i < scriptCount; i++ {
		if t.letters[i] > 0 {
			f.Scripts = append(f.Scripts, Script{Name: scripts[i].name, Letters: t.letters[i]})
		}
	}
	slices.SortStableFunc(f.Scripts, func(a, b Script) int { return cmp.Compare(b.Letters, a.Letters) })
	if len(f.Scripts) > mostScripts {
		f.Scripts = f.Scripts[:mostScripts]
	}
	if len(f.Scripts) > 0 {
		f.Script = f.Scripts[0].Name
	}
	f.Language = t.language(f.Script)
}

func (t *tally) read(s string) {
	begin := -1 // of a word
	var w word
	for i, r := range s {
		t.chars++
		sc := scriptOf(r)
		if r >= utf8.RuneSelf {
			t.nonASCII++
			t.invisible(r, s, i)
		}
		if sc != noScript {
			if begin < 0 {
				begin, w = i, word{}
			}
			t.letters[sc]++
			w.add(sc)
			continue
		}
		if begin >= 0 && !(r >= utf8.RuneSelf && (unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r))) {
			t.word(s[begin:i], w)
			begin = -1
		}
	}
	if begin >= 0 {
		t.word(s[begin:], w)
	}
}

// invisible counts what takes no room and has no business where it stands.
func (t *tally) invisible(r rune, s string, at int) {
	switch {
	case r == 0x200c || r == 0x200d: // joiners: right between letters of scripts that have them, and in emoji
		before, _ := utf8.DecodeLastRuneInString(s[:at])
		if before < 0x600 {
			t.zeroWidth++
		}
	case r == 0xad, r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x2064, r >= 0x2066 && r <= 0x2069,
		r == 0xfeff, r == 0x34f, r == 0x61c, r == 0x180e, r >= 0xe0000 && r <= 0xe007f:
		t.zeroWidth++
	}
}

func (t *tally) word(s string, w word) {
	if w.mixed() && utf8.RuneCountInString(s) >= shortestMixed {
		t.mixed = true
		if s = clip(s, longestWord); len(t.mixedSeen) < mostMixed && !slices.Contains(t.mixedSeen, s) {
			t.mixedSeen = append(t.mixedSeen, strings.Clone(s))
		}
	}
	t.guess.word(s)
}

// smallWords tell languages apart: a language is known by the small words that every text in it has.
var smallWords = map[string]string{
	"en": "the and of to in is that for you with this are be have on not your we as from will it was or by our has can",
	"de": "der die das und ist nicht ein eine zu den mit für auf sie ich es dem von wir im sich auch als bei wird haben ihre oder",
	"fr": "le la les et des est une vous pour dans que qui nous votre pas sur au avec du par ce cette sont ou plus être à",
	"es": "el los las que y para con una por su es del se como más lo al está sus este esta pero muy son le",
	"it": "il che di per una con non è del sono della alla gli anche più questo nel si ti questa dei ha le ma al",
	"pt": "o que não uma para com por mais os as seu sua em você está são pelo também ao foi dos da do às",
	"nl": "de het een en van ik niet is dat op te voor zijn met je er aan ook maar bij uw wij naar worden heeft",
	"sv": "och att det som är en på för med av den inte till har om ett vi du kan från jag eller så din",
	"da": "og det er til af en at på med for ikke den som har vi du kan jeg fra et om din eller blev",
	"pl": "w i na z się nie do to jest że o jak dla po przez od tym oraz są ze za co jego lub",
	"cs": "a se je na že v to s z do jsou o pro jako za by ale tak od ve které jsem při nebo",
	"tr": "ve bir bu için ile çok olarak daha olan sizin gibi da de ne kadar veya değil ama en size her",
	"ru": "и в не на что с по это как для из от вы мы за то к у о но же так все бы ваш",
	"uk": "і в не на що з та до це як для від ви ми за у але й або ваш про є",
}

// A wordTable maps each of them to the languages that have it, as bits in the order of names.
type wordTable struct {
	names []string
	words map[string]uint32
}

// smallWordTable is made when it is first asked for.
var smallWordTable = sync.OnceValue(func() *wordTable {
	t := &wordTable{words: map[string]uint32{}}
	for name := range smallWords {
		t.names = append(t.names, name)
	}
	slices.Sort(t.names)
	for i, name := range t.names {
		for _, w := range strings.Fields(smallWords[name]) {
			t.words[w] |= 1 << i
		}
	}
	return t
})

// A guesser counts small words.
type guesser struct {
	words int
	hits  [16]int
}

// mostGuessed is how many words are enough to know.
const mostGuessed = 400

func (g *guesser) word(s string) {
	if g.words >= mostGuessed {
		return
	}
	g.words++
	const longest = 16
	if len(s) > longest {
		return
	}
	var buf [longest]byte
	lower := buf[:0]
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			lower = append(lower[:0], strings.ToLower(s)...)
			break
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		lower = append(lower, c)
	}
	t := smallWordTable()
	for set, i := t.words[string(lower)], 0; set != 0; set, i = set>>1, i+1 {
		if set&1 != 0 {
			g.hits[i]++
		}
	}
}

// language says which language it is, "" where that is not clear: there are too few words, or two languages fit.
func (t *tally) language(dominant string) string {
	switch dominant {
	case "Hangul":
		return "ko"
	case "Hiragana", "Katakana":
		return "ja"
	case "Han":
		if kana := t.letters[hiragana] + t.letters[katakana]; kana*20 > t.letters[han] {
			return "ja"
		}
		return "zh"
	case "Thai":
		return "th"
	case "Greek":
		return "el"
	case "Hebrew":
		return "he"
	case "Georgian":
		return "ka"
	case "Armenian":
		return "hy"
	case "Tamil":
		return "ta"
	case "Latin", "Cyrillic":
	default:
		return "" // several languages are written so
	}
	const least = 6 // hits
	best, second, at := 0, 0, 0
	for i, n := range t.guess.hits {
		switch {
		case n > best:
			best, second, at = n, best, i
		case n > second:
			second = n
		}
	}
	// In real text about every third word is one of them.
	if best < least || best*2 < second*3 || best*12 < t.guess.words {
		return ""
	}
	return smallWordTable().names[at]
}

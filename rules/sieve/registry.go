package sieve

import "slices"

// An extension is what one name in require brings: commands, tests, and tags on those of others. The base language
// (RFC 5228) is the extension "", which is always in force.
type extension struct {
	name string
	with []string // extensions that come with it: vacation with vacation-seconds
	// free: it is in force without require too, as Pigeonhole has it.
	free bool
	// grammar: it changes how the script itself is read, and cannot be asked for with ihave (RFC 5463, 4).
	grammar  bool
	unlisted bool // it is not announced
	commands []form
	tests    []form
	tags     []tagOn
}

// A tagOn is a tag that an extension adds to commands and tests of others.
type tagOn struct {
	on []string
	tag
}

// A form describes a command or a test: what it takes, and what it does.
type form struct {
	name string
	tags []tag
	// args are the positional arguments. A leading optional one may be left out.
	args []positional
	// tests: how many tests it takes: 0, 1, or -1 for a list of them.
	tests int
	block bool
	// matches: it takes a comparator and a match type; the last of args has the keys.
	matches bool
	silent  bool // its matches leave no match values (RFC 5173, 6)

	// check looks at what tags and arguments alone cannot say, when the script is compiled.
	check func(c *checker, n *call)
	run   func(r *run, n *call) flow // of a command
	holds func(r *run, n *call) bool // of a test
}

// A shape is what kind of argument stands somewhere.
type shape uint8

const (
	nothing shape = iota
	number
	text
	texts // a string or a list of strings
)

func (s shape) String() string {
	return [...]string{"nothing", "a number", "a string", "a string or a list of strings"}[s]
}

// A positional is an argument known by its place.
type positional struct {
	name     string // for messages, and for [call.arg]
	shape    shape
	optional bool
	constant bool // it may have no variables (RFC 5229, 3)
}

// A tag is an argument known by its name.
type tag struct {
	name     string // without the colon
	takes    shape
	constant bool
	// group: tags of one group exclude each other.
	group string
	// needs is another tag without which this one means nothing: last needs index.
	needs string
	check func(c *checker, n *call, v *value)
	// apply makes of an action that a command asks for what the tag wants: :copy, :flags, :create.
	apply func(r *run, n *call, v *value, a *Action)
}

// extensions is the list of all extensions. Each is described in the file that has it.
func extensions() []extension {
	return slices.Concat(
		baseExtensions(), smallExtensions(), variablesExtension(), includeExtension(), dateExtension(), bodyExtension(),
		partExtensions(), flagExtensions(), folderExtensions(), forwardExtensions(), refuseExtensions(), vacationExtensions(),
		notifyExtension(), duplicateExtension(), editExtensions(), programExtensions(),
	)
}

// available returns the extensions that scripts may use, by name.
func available(o Options) map[string]*extension {
	all := map[string]*extension{}
	for _, e := range extensions() {
		switch e.name {
		case "vnd.dovecot.pipe", "vnd.dovecot.filter", "vnd.dovecot.execute":
			if o.Programs == nil {
				continue
			}
		}
		if slices.Contains(o.Off, e.name) {
			continue
		}
		if x := all[e.name]; x != nil { // it is described in several files
			x.with = slices.Concat(x.with, e.with)
			x.commands, x.tests = slices.Concat(x.commands, e.commands), slices.Concat(x.tests, e.tests)
			x.tags = slices.Concat(x.tags, e.tags)
			continue
		}
		all[e.name] = &e
	}
	return all
}

// An index finds forms and tags by their names.
type index struct {
	commands, tests map[string][]offered
	tags            map[string][]offeredTag
}

type offered struct {
	by *extension
	*form
}

type offeredTag struct {
	by *extension
	*tagOn
}

func newIndex(all map[string]*extension) index {
	x := index{map[string][]offered{}, map[string][]offered{}, map[string][]offeredTag{}}
	for _, e := range all {
		for i := range e.commands {
			x.commands[e.commands[i].name] = append(x.commands[e.commands[i].name], offered{e, &e.commands[i]})
		}
		for i := range e.tests {
			x.tests[e.tests[i].name] = append(x.tests[e.tests[i].name], offered{e, &e.tests[i]})
		}
		for i := range e.tags {
			x.tags[e.tags[i].name] = append(x.tags[e.tags[i].name], offeredTag{e, &e.tags[i]})
		}
	}
	return x
}

// takes reports whether a tag of an extension is one of the form's.
func (f *form) takes(t *tagOn) bool {
	return slices.Contains(t.on, f.name) || f.matches && slices.Contains(t.on, "*")
}

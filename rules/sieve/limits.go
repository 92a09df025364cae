package sieve

import "time"

// Limits bound what a script may cost. The zero value of each is its default.
type Limits struct {
	// script_size is how many octets a script may have; 0 is 1 MiB.
	ScriptSize int `yaml:"script_size"`
	// nesting is how deep blocks may stand in blocks, and tests in tests; 0 is 32.
	Nesting int `yaml:"nesting"`
	// problems is how many problems of a script are reported at once; 0 is 100.
	Problems int `yaml:"problems"`
	// string_size is how many octets a string may have as it stands in the script; 0 is 256 KiB.
	StringSize int `yaml:"string_size"`
	// strings is how many strings one list may have; 0 is 10000.
	Strings int `yaml:"strings"`
	// regex is how many octets the regular expressions of a script and what it includes may have together; 0 is 64 KiB.
	Regex int `yaml:"regex"`
	// includes is how many scripts a script may include, directly and not; 0 is 100.
	Includes int `yaml:"includes"`
	// include_depth is how deep includes may stand in each other; 0 is 10.
	IncludeDepth int `yaml:"include_depth"`
	// instructions is how many steps a run may take: commands, tests, and what they compare (one for each 256 octets or
	// so); 0 is 1000000.
	Instructions int `yaml:"instructions"`
	// variables is how many variables a script may have at once; 0 is 255.
	Variables int `yaml:"variables"`
	// variable_size is how many octets one variable may have; 0 is 64 KiB.
	VariableSize int `yaml:"variable_size"`
	// memory is how many octets all variables may have together; 0 is 1 MiB.
	Memory int `yaml:"memory"`
	// body is how many octets of a body a test looks at; 0 is 4 MiB.
	Body int `yaml:"body"`
	// actions is how many actions a run may want; 0 is 100.
	Actions int `yaml:"actions"`
	// redirects is how often a run may hand the mail on; 0 is 5.
	Redirects int `yaml:"redirects"`
	// notifies is how many notifications a run may send; 0 is 5.
	Notifies int `yaml:"notifies"`
	// edited_fields is how many changes a run may make to the mail; 0 is 100.
	EditedFields int `yaml:"edited_fields"`
	// edited_size is how many octets one change may add to the mail; 0 is 10 MiB.
	EditedSize int `yaml:"edited_size"`
	// programs is how many programs a run may ask for an answer, as filter and execute do; 0 is 5.
	Programs int `yaml:"programs"`
	// hops is how many Received fields a mail may have that is still handed on; 0 is 50.
	Hops int `yaml:"hops"`

	// vacation_time is how long a sender gets no second reply where the script says nothing; 0 is 7 days.
	VacationTime time.Duration `yaml:"vacation_time"`
	// vacation_least is the least that a script may say (RFC 6131, 2); 0 is 1 minute.
	VacationLeast time.Duration `yaml:"vacation_least"`
	// duplicate_time is how long a mail is known where the script says nothing (RFC 7352, 3); 0 is 7 days.
	DuplicateTime time.Duration `yaml:"duplicate_time"`
	// remember_most is the most that a script may say, for both; 0 is 365 days.
	RememberMost time.Duration `yaml:"remember_most"`

	// log is how many lines a run may write with debug_log; 0 is 100.
	Log int `yaml:"log"`
	// trace is how many lines a run's trace may have; 0 is 10000.
	Trace int `yaml:"trace"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	for _, x := range []struct {
		limit *int
		value int
	}{
		{&l.ScriptSize, 1 << 20}, {&l.Nesting, 32}, {&l.Problems, 100}, {&l.StringSize, 256 << 10}, {&l.Strings, 10000},
		{&l.Regex, 64 << 10}, {&l.Includes, 100}, {&l.IncludeDepth, 10}, {&l.Instructions, 1000000}, {&l.Variables, 255},
		{&l.VariableSize, 64 << 10}, {&l.Memory, 1 << 20}, {&l.Body, 4 << 20}, {&l.Actions, 100}, {&l.Redirects, 5}, {&l.Notifies, 5},
		{&l.EditedFields, 100}, {&l.EditedSize, 10 << 20}, {&l.Programs, 5}, {&l.Hops, 50}, {&l.Log, 100}, {&l.Trace, 10000},
	} {
		if *x.limit <= 0 {
			*x.limit = x.value
		}
	}
	for _, x := range []struct {
		limit *time.Duration
		value time.Duration
	}{
		{&l.VacationTime, 7 * 24 * time.Hour}, {&l.VacationLeast, time.Minute}, {&l.DuplicateTime, 7 * 24 * time.Hour},
		{&l.RememberMost, 365 * 24 * time.Hour},
	} {
		if *x.limit <= 0 {
			*x.limit = x.value
		}
	}
	return l
}

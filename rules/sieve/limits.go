package sieve

import "time"

// Limits bound what a script may cost. The zero value of each is its default.
type Limits struct {
	ScriptSize   int `yaml:"script_size"`   // octets of one script; 0 is 1 MiB
	Nesting      int `yaml:"nesting"`       // blocks in blocks, and tests in tests; 0 is 32
	Problems     int `yaml:"problems"`      // reported at once; 0 is 100
	StringSize   int `yaml:"string_size"`   // octets of a string as it stands in the script; 0 is 256 KiB
	Strings      int `yaml:"strings"`       // in one list; 0 is 10000
	Regex        int `yaml:"regex"`         // octets of the regular expressions of a script and what it includes, together; 0 is 64 KiB
	Includes     int `yaml:"includes"`      // scripts that a script includes, directly and not; 0 is 100
	IncludeDepth int `yaml:"include_depth"` // how deep includes may stand in each other; 0 is 10
	Instructions int `yaml:"instructions"`  // a run: commands, tests, and what they compare (one per 256 octets or so); 0 is 1000000
	Variables    int `yaml:"variables"`     // a script at once; 0 is 255
	VariableSize int `yaml:"variable_size"` // octets of one variable; 0 is 64 KiB
	Memory       int `yaml:"memory"`        // octets of all variables together; 0 is 1 MiB
	Body         int `yaml:"body"`          // octets of a body that a test looks at; 0 is 4 MiB
	Actions      int `yaml:"actions"`       // a run; 0 is 100
	Redirects    int `yaml:"redirects"`     // a run; 0 is 5
	Notifies     int `yaml:"notifies"`      // a run; 0 is 5
	EditedFields int `yaml:"edited_fields"` // changes that a run makes to the mail; 0 is 100
	EditedSize   int `yaml:"edited_size"`   // octets that one of them adds to it; 0 is 10 MiB
	Programs     int `yaml:"programs"`      // that a run of a script asks for an answer, as filter and execute do; 0 is 5
	Hops         int `yaml:"hops"`          // Received fields of a mail that is still redirected; 0 is 50

	VacationTime  time.Duration `yaml:"vacation_time"`  // how long a sender gets no second reply where the script says nothing; 0 is 7 days
	VacationLeast time.Duration `yaml:"vacation_least"` // the least that a script may say (RFC 6131, 2); 0 is 1 minute
	DuplicateTime time.Duration `yaml:"duplicate_time"` // how long a mail is known where the script says nothing (RFC 7352, 3); 0 is 7 days
	RememberMost  time.Duration `yaml:"remember_most"`  // the most that a script may say, for both; 0 is 365 days

	Log   int `yaml:"log"`   // lines of a run's debug_log; 0 is 100
	Trace int `yaml:"trace"` // lines of a run's trace; 0 is 10000
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

package rules

import (
	"cmp"
	"fmt"
)

// Limits bound what the rules of a step may cost. Zero values are those of [DefaultLimits].
type Limits struct {
	// MaxRules is how many rules the step may have.
	MaxRules int `yaml:"max_rules"`
	// MaxCondition is how many octets a condition may have; at most 65536.
	MaxCondition int `yaml:"max_condition"`
	// MaxValue is how many octets of a header field conditions see.
	MaxValue int `yaml:"max_value"`
	// MaxText is how many octets of the mail's text, and of its HTML, conditions see.
	MaxText int `yaml:"max_text"`
	// MaxItems is how many items of each list of the mail conditions see: recipients, authors, links, attachments, header
	// fields of one name.
	MaxItems int `yaml:"max_items"`
	// MaxPattern is how many instructions a pattern may be compiled to; "a{1,500}" has about 1000.
	MaxPattern int `yaml:"max_pattern"`
	// MaxFile is how many octets a rule file may have.
	MaxFile int `yaml:"max_file"`
	// MaxFiles is how many rule files the step may have, with those that they include.
	MaxFiles int `yaml:"max_files"`
	// MaxIncludeDepth is how many files may include one another in a row.
	MaxIncludeDepth int `yaml:"max_include_depth"`
	// MaxListEntries is how many entries a list may have.
	MaxListEntries int `yaml:"max_list_entries"`
	// MaxListOctets is how many octets the files of a list may have together.
	MaxListOctets int `yaml:"max_list_octets"`
	// MaxMemory is how many items of lists a term may make while it runs. A term that needs more is unknown.
	MaxMemory int `yaml:"max_memory"`
}

// DefaultLimits are the limits of rules that an administrator writes.
func DefaultLimits() Limits {
	return Limits{
		MaxRules: 10_000, MaxCondition: 8 << 10, MaxValue: 16 << 10, MaxText: 256 << 10, MaxItems: 500, MaxPattern: 20_000, MaxFile: 4 << 20,
		MaxFiles: 1000, MaxIncludeDepth: 8, MaxListEntries: 200_000, MaxListOctets: 8 << 20, MaxMemory: 10_000,
	}
}

// UserLimits are the limits of rules that a user writes for mail of his own: who writes them is not who pays for them.
func UserLimits() Limits {
	return Limits{
		MaxRules: 200, MaxCondition: 1 << 10, MaxValue: 4 << 10, MaxText: 32 << 10, MaxItems: 100, MaxPattern: 1000, MaxFile: 64 << 10,
		MaxFiles: 1, MaxIncludeDepth: 1, MaxListEntries: 1000, MaxListOctets: 64 << 10, MaxMemory: 1000,
	}
}

// mostCondition bounds max_condition: the parser calls itself for each level of a condition.
const mostCondition = 64 << 10

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		MaxRules: cmp.Or(max(l.MaxRules, 0), d.MaxRules), MaxCondition: cmp.Or(max(l.MaxCondition, 0), d.MaxCondition),
		MaxValue: cmp.Or(max(l.MaxValue, 0), d.MaxValue), MaxPattern: cmp.Or(max(l.MaxPattern, 0), d.MaxPattern),
		MaxFile: cmp.Or(max(l.MaxFile, 0), d.MaxFile), MaxFiles: cmp.Or(max(l.MaxFiles, 0), d.MaxFiles),
		MaxText: cmp.Or(max(l.MaxText, 0), d.MaxText), MaxItems: cmp.Or(max(l.MaxItems, 0), d.MaxItems),
		MaxListEntries: cmp.Or(max(l.MaxListEntries, 0), d.MaxListEntries), MaxListOctets: cmp.Or(max(l.MaxListOctets, 0), d.MaxListOctets),
		MaxIncludeDepth: cmp.Or(max(l.MaxIncludeDepth, 0), d.MaxIncludeDepth), MaxMemory: cmp.Or(max(l.MaxMemory, 0), d.MaxMemory),
	}
}

func (l Limits) check() (wrong []error) {
	if l.MaxCondition > mostCondition {
		wrong = append(wrong, fmt.Errorf("max_condition: %d is above %d", l.MaxCondition, mostCondition))
	}
	return wrong
}

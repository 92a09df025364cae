package config

import (
	"maps"
	"slices"
	"strings"

	"sluice/mailstore"
)

// checkAnnotations finds what is wrong with the annotations of the server, and brings their names into the form that they
// are compared in.
func (c *Config) checkAnnotations() {
	normal := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Annotations)) {
		at, value := "annotations."+name, c.Annotations[name]
		lower, err := mailstore.AnnotationName(name)
		switch {
		case err != nil:
			c.d.wrong(at, err.Error(), "write for example /shared/comment")
			continue
		case !strings.HasPrefix(lower, "/shared/"):
			c.d.wrong(at, name+" is one account's business, and these are seen by all", "write for example /shared/comment")
			continue
		}
		if _, twice := normal[lower]; twice {
			c.d.wrong(at, name+" stands there already: names are compared without regard to case", "remove one of them")
		}
		if err := mailstore.AnnotationValue(value); err != nil {
			c.d.wrong(at, err.Error(), "")
		}
		normal[lower] = value
	}
	c.Annotations = normal
}

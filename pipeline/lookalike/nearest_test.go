package lookalike

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	for _, tt := range []struct{ s, names, want string }{
		{"fiel", "file fail keep", "file"},
		{"FILEINTO", "keep fileinto", "fileinto"},
		{"x", "a b", "a"}, // one letter changed
		{"xy", "a b", ""},
		{"hedaer", "reader header", "header"}, // two neighbours swapped are one mistake
		{"größe", "grosse größer", "größer"},
		{"subject", "", ""},
		{strings.Repeat("a", 65), strings.Repeat("a", 64), ""},
	} {
		if got := Nearest(tt.s, strings.Fields(tt.names)); got != tt.want {
			t.Errorf("%q of %q: %q, want %q", tt.s, tt.names, got, tt.want)
		}
	}
}

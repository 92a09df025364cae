package mime

import (
	"strings"
	"testing"
)

// The host is the one that a browser would go to.
func TestHostOf(t *testing.T) {
	for in, want := range map[string]string{
		"http://Example.com/x":              "example.com",
		"https://user:pw@evil.example:8443": "evil.example",
		"http://bank.example@evil.example/": "evil.example",
		"http:\\\\evil.example\\x":          "evil.example",
		"http://3221225985/":                "192.0.2.1",
		"http://0xC0000201/":                "192.0.2.1",
		"http://0300.0.02.1/":               "192.0.2.1",
		"http://192.513/":                   "192.0.2.1",
		"http://192.0.2.1./":                "192.0.2.1",
		"http://192.0.2.300/":               "192.0.2.300",
		"http://evil。example/":              "evil.example",
		"http://[2001:db8::1]/":             "2001:db8::1",
		"http://a b.example/":               "a b.example",
		"http://%zz.example/":               "%zz.example",
		"http://ev%69l.example/":            "evil.example",
		"http://evil%2Eexample/":            "evil.example",
		"http://evil.example%2F@x.example/": "x.example",
		"http:///evil.example/x":            "evil.example",
		"http:/evil.example/x":              "evil.example",
		"http:\\/evil.example\\@x.example/": "evil.example",
		"http://x.example#@evil.example/":   "x.example",
		"http://x.example?@evil.example/":   "x.example",
		"http://a:b@c@evil.example:80?x":    "evil.example",
		"ht\ntp://ev\til.example/":          "evil.example",
		"http://[::ffff:192.0.2.1]:80/":     "192.0.2.1",
		"http://[fe80::1%25eth0]/":          "fe80::1",
		"http://[x]/":                       "",
		"http://EVIL.Example.:8080":         "evil.example",
		"mailto:a@evil.example":             "",
		"x":                                 "",
	} {
		if got := HostOf(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// An open redirector leads on to what stands in its URL.
func TestRedirectors(t *testing.T) {
	for in, want := range map[string]string{
		"https://www.google.com/url?q=http://evil.example/x&sa=D":                            "www.google.com evil.example",
		"https://r.example/?u=https%3A%2F%2Fevil.example%2Fx":                                "r.example evil.example",
		"https://r.example/?u=https%253A%252F%252Fevil.example":                              "r.example evil.example",
		"https://r.example/http:/evil.example/":                                              "r.example evil.example",
		"https://a.example/?x=http://b.example/?y=http://c.example/":                         "a.example b.example c.example",
		"https://a.example/http-is-a-word":                                                   "a.example",
		"https://a.example/" + strings.Repeat("http://x.example/", 50) + "http://z.example/": "a.example x.example",
	} {
		if got := strings.Join(LinkHosts([]string{in}), " "); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

package content

import (
	"reflect"
	"strings"
	"testing"
)

func TestHidden(t *testing.T) {
	for _, tt := range []struct {
		html    string
		hidden  string // what is hidden
		how     string
		visible int
	}{
		{`<p>hello</p>`, "", "", 5},
		{`<div style="display: none">secret</div>seen`, "secret", "display", 4},
		{`<div style="display:none!important"><p><b>a</b> b</div>seen`, "a b", "display", 4},
		{`<div style="display:none;display:block">x</div>`, "", "", 1},
		{`<div hidden>x</div>y`, "x", "display", 1},
		{`<span style="visibility:hidden">x</span>y`, "x", "visibility", 1},
		{`<span style="font-size:0px">x</span>y`, "x", "size", 1},
		{`<span style="font-size:0">x<b style="font-size:12px">z</b></span>y`, "x", "size", 2},
		{`<span style="font:0/0 a">x</span><span style="font: bold 1px/1 arial">y</span>`, "y", "size", 1},
		{`<span style="opacity:0">x</span>y`, "x", "opacity", 1},
		{`<span style="max-height:0;overflow:hidden">x</span>y`, "x", "clipped", 1},
		{`<span style="max-height:0">x</span>y`, "", "", 2},
		{`<span style="position:absolute;left:-9999px">x</span>y`, "x", "position", 1},
		{`<span style="text-indent:-9999px">x</span>y`, "x", "position", 1},
		{`<font color="#ffffff">x</font>y`, "x", "colour", 1},
		{`<font color=white>x</font>y`, "x", "colour", 1},
		{`<p style="color:#FEFEFE">x<p>y`, "x", "colour", 1},
		{`<div style="background-color:#000"><font color=white>x</font></div>`, "", "", 1},
		{`<td bgcolor=black><p style="color:rgb(0,0,0)">x</td>y`, "x", "colour", 1},
		{`<td background="a.png"><font color=white>x</font></td>`, "", "", 1},
		{`<div style="background:url(a.png)"><font color=white>x</font></div>`, "", "", 1},
		{`<style>.a, p.b {display:none} @media screen {.c{display:none}} #d{font-size:0}</style><i class="z a">1</i><i class=b>2</i><i class=c>3</i><i id=d>4</i>`, "1 2 4", "display size", 1},
		{`<style>.a{display:none}</style><p class=a>1<p>2`, "1", "display", 1},
		{`<title>x</title><script>y</script><template>z</template><!-- c -->seen`, "", "", 4},
		{`<div style=display:none>x<table><tr><td>y</div>z</table></div>w`, "x y z", "display", 1},
		{`<noscript>seen</noscript>`, "", "", 4},
		{`<a href=https://a.example style="color:#fff">x</a>`, "x", "colour", 0},
		{`<div style="display:none">` + strings.Repeat("\u200b&nbsp;", 50) + `</div>y`, "", "", 1},
	} {
		got := readHTML(tt.html, 1<<20, "", reached{})
		if got.HiddenSample != tt.hidden || strings.Join(got.HiddenHow, " ") != tt.how || got.VisibleText != tt.visible {
			t.Errorf("%s\nhidden %q by %q, %d seen", tt.html, got.HiddenSample, got.HiddenHow, got.VisibleText)
		}
		if want := len(strings.ReplaceAll(tt.hidden, " ", "")); got.HiddenText != want {
			t.Errorf("%s: %d hidden, want %d", tt.html, got.HiddenText, want)
		}
	}
}

func TestLinkMismatch(t *testing.T) {
	for _, tt := range []struct {
		html string
		want string
	}{
		{`<a href="https://evil.example/x">https://bank.com/login</a>`, "bank.com → evil.example"},
		{`<a href="https://evil.example/x"> www.bank.com </a>`, "www.bank.com → evil.example"},
		{`<a href="https://evil.example/x"><b>bank</b>.com</a>`, "bank.com → evil.example"},
		{`<a href="https://evil.example/x">b&#8203;ank.com</a>`, "bank.com → evil.example"}, // that takes no room
		{`<a href="https://evil.example/x">bank.com`, "bank.com → evil.example"},
		{`<a href="https://evil.example/x">bank.com<a href=#>y</a>`, "bank.com → evil.example"},
		{`<a href="//evil.example/x">HTTP://BANK.COM</a>`, "bank.com → evil.example"},
		{"<a href=\"ht\ntps:\\\\evil.example\">bank.com</a>", "bank.com → evil.example"},
		{`<a href="https://click.bank.com/x">www.bank.com</a>`, ""},
		{`<a href="https://evil.example/x">click here</a>`, ""},
		{`<a href="https://evil.example/x">readme.md</a>`, ""},
		{`<a href="https://evil.example/x">invoice.pdf</a>`, ""},
		{`<a href="https://evil.example/x">12.50</a>`, ""},
		{`<a href="https://evil.example/x">me@bank.com</a>`, ""},
		{`<a href="mailto:me@evil.example">bank.com</a>`, ""},
		{`<a href="http://192.0.2.1/x">http://bank.com/</a>`, "bank.com → 192.0.2.1"},
		{`<a href="https://b&uuml;cher.example/x">https://bank.com/</a>`, "bank.com → b\u00fccher.example"},
		{`<a href="https://bank.com@evil.example/">x</a>`, "bank.com → evil.example"},
		{`<a href="https://user@evil.example/">x</a>`, ""},
	} {
		got := readHTML(tt.html, 1<<20, "", reached{})
		var all []string
		for _, m := range got.Mismatches {
			all = append(all, m.Shown+" → "+m.Goes)
		}
		if s := strings.Join(all, ", "); s != tt.want || got.LinkMismatch != (tt.want != "") {
			t.Errorf("%s: %q, want %q", tt.html, s, tt.want)
		}
	}
	many := readHTML(strings.Repeat(`<a href="https://evil.example/x">bank.com</a>`, 100), 1<<20, "", reached{})
	if len(many.Mismatches) != mostMismatches || many.Links != 100 {
		t.Errorf("%d of %d", len(many.Mismatches), many.Links)
	}
}

func TestHTML(t *testing.T) {
	for _, tt := range []struct {
		html string
		want HTML
	}{
		{`<form action="https://evil.example/x"><input type=Password>`, HTML{Form: true, FormForeign: true, Password: true, FormActions: []string{"https://evil.example/x"}}},
		{`<form action="https://www.shop.example/x">`, HTML{Form: true, FormActions: []string{"https://www.shop.example/x"}}},
		{`<form action="/x"><button formaction="http://evil.example">`, HTML{Form: true, FormForeign: true, FormActions: []string{"http://evil.example"}}},
		{`<script>x</script>`, HTML{Script: true}},
		{`<a href=" java&#10;script:x">y</a>`, HTML{Script: true, Links: 1, VisibleText: 1}},
		{`<svg><script>x</script></svg><script>`, HTML{Script: true, SVGScript: true}},
		{`<svg onload=x />`, HTML{SVGScript: true, EventHandlers: 1}},
		{`<body onload=x onunload=y on=z one=w>`, HTML{EventHandlers: 2}},
		{`<img src="https://t.example/x.gif" width=1 height=1><img src=https://t.example/y.png width=100><img src=cid:x width=1>`, HTML{Images: 3, RemoteImages: 2, TrackingPixels: 1}},
		{`<img src="//t.example/x" style="width:1px"><img src="https://t.example/x" style="display:none"><img src="https://t.example/x" height="0">`, HTML{Images: 3, RemoteImages: 3, TrackingPixels: 3}},
		{`<iframe src=https://a.example></iframe><object data=x></object>`, HTML{Frames: 2}},
		{`<base href="https://evil.example/"><base href=https://b.example>`, HTML{Base: "https://evil.example/"}},
		{`<meta http-equiv=Refresh content="0; URL='https://evil.example/'">`, HTML{Refresh: "https://evil.example/"}},
		{`<meta charset=utf-8><meta http-equiv=refresh content=5>`, HTML{}},
		{`<a href="data:text/html;base64,xx">x</a><img src="data:image/png;base64,xx">`, HTML{Links: 1, DataURIs: 2, DataHTML: true, Images: 1, VisibleText: 1}},
		{`<a href="https://u@shop.example/">x</a>`, HTML{Links: 1, LinkUserinfo: true, VisibleText: 1}},
	} {
		tt.want.Present = true
		if got := readHTML(tt.html, 1<<20, "shop.example", reached{}); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s\n got %+v\nwant %+v", tt.html, got, tt.want)
		}
	}
	if got := readHTML("", 1<<20, "", reached{}); !reflect.DeepEqual(got, HTML{}) {
		t.Errorf("%+v", got)
	}
}

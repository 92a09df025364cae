package aggregate

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The form of a report is RFC 7489's, Appendix C, in its order of elements, and as most who send reports write it
// without a namespace. What RFC 9990 adds stands in it only about domains whose policy uses what RFC 9989 adds.

type feedback struct {
	XMLName  xml.Name        `xml:"feedback"`
	Version  string          `xml:"version"`
	Metadata metadata        `xml:"report_metadata"`
	Policy   policyPublished `xml:"policy_published"`
	Records  []record        `xml:"record"`
}

type metadata struct {
	Org   string `xml:"org_name"`
	Email string `xml:"email"`
	ID    string `xml:"report_id"`
	Begin int64  `xml:"date_range>begin"`
	End   int64  `xml:"date_range>end"`
}

type policyPublished struct {
	Domain    string `xml:"domain"`
	ADKIM     string `xml:"adkim"`
	ASPF      string `xml:"aspf"`
	P         string `xml:"p"`
	SP        string `xml:"sp"`
	NP        string `xml:"np,omitempty"`
	Pct       int    `xml:"pct"`
	FO        string `xml:"fo"`
	Testing   string `xml:"testing,omitempty"`
	Discovery string `xml:"discovery_method,omitempty"`
}

type record struct {
	Row         row         `xml:"row"`
	Identifiers identifiers `xml:"identifiers"`
	Auth        auth        `xml:"auth_results"`
}

type row struct {
	SourceIP  string     `xml:"source_ip"`
	Count     int        `xml:"count"`
	Evaluated evaluation `xml:"policy_evaluated"`
}

type evaluation struct {
	Disposition string   `xml:"disposition"`
	DKIM        string   `xml:"dkim"`
	SPF         string   `xml:"spf"`
	Reasons     []reason `xml:"reason"`
}

type reason struct {
	Type    string `xml:"type"`
	Comment string `xml:"comment,omitempty"`
}

type identifiers struct {
	EnvelopeFrom string `xml:"envelope_from"`
	HeaderFrom   string `xml:"header_from"`
}

type auth struct {
	DKIM []dkimResult `xml:"dkim"`
	SPF  spfResult    `xml:"spf"`
}

type dkimResult struct {
	Domain   string `xml:"domain"`
	Selector string `xml:"selector"`
	Result   string `xml:"result"`
}

type spfResult struct {
	Domain string `xml:"domain"`
	Scope  string `xml:"scope"`
	Result string `xml:"result"`
}

// Write writes the report into a folder, with gzip if compressed, and returns the name of the file. A file of this name
// is replaced once the new one is whole.
func (r Report) Write(dir string, compressed bool) (name string, err error) {
	text, name, err := r.text(compressed)
	if err != nil {
		return "", err
	}
	if err := replace(filepath.Join(dir, name), text); err != nil {
		return "", fmt.Errorf("report about %s: %w", r.Domain, err)
	}
	return name, nil
}

// text is the report, with gzip if compressed, and what its file is called.
func (r Report) text(compressed bool) (text []byte, name string, err error) {
	text, err = xml.MarshalIndent(r.feedback, "", "  ")
	if err != nil {
		return nil, "", fmt.Errorf("report about %s: %w", r.Domain, err)
	}
	text = append([]byte(xml.Header), append(text, '\n')...)
	if !compressed {
		return text, r.name, nil
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		return nil, "", fmt.Errorf("report about %s: %w", r.Domain, err)
	}
	if err := z.Close(); err != nil {
		return nil, "", fmt.Errorf("report about %s: %w", r.Domain, err)
	}
	return b.Bytes(), r.name + ".gz", nil
}

func replace(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o640), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

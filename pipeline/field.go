package pipeline

import (
	"strconv"
	"strings"
)

// Fields that we add above a message, besides IDField.
const (
	FlagField   = "X-Spam-Flag"     // YES where a score says junk
	ScoreField  = "X-Spam-Score"    // the sum of the hits
	FolderField = "X-Sluice-Folder" // where a site that delivers itself may file it
	HitsField   = "X-Sluice-Hits"   // the rules that held, with their scores
)

// Ours reports whether a header field of this name is one that only we write: a copy that comes from outside is forged
// and removed at the first door.
func Ours(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "x-sluice-") || name == "x-spam-flag" || name == "x-spam-score"
}

// Fields returns the fields that door d adds above the message for this decision: what the rules found and, where the
// MTA delivers, the folder. The fields that rules add are in Edits.
func (d Decision) Fields(door Door) []Edit {
	var out []Edit
	if len(d.Hits) > 0 {
		out = append(out, Edit{Name: ScoreField, Value: strconv.FormatFloat(d.Score, 'f', 1, 64)})
	}
	if d.Junk {
		out = append(out, Edit{Name: FlagField, Value: "YES"})
	}
	if door == Milter && d.Folder != "" {
		out = append(out, Edit{Name: FolderField, Value: CleanText(d.Folder)})
	}
	if len(d.Hits) > 0 {
		out = append(out, Edit{Name: HitsField, Value: hitsValue(d.Hits)})
	}
	return out
}

// hitsValue is "zen=4, newsletters=0", cut where the field would get too long: unfolded it stays under 998 octets
// (RFC 5322, 2.1.1), and some clients lose mail with longer ones.
func hitsValue(hits []Hit) string {
	const most = 900
	var b strings.Builder
	for i, h := range hits {
		one := CleanText(h.Name) + "=" + strconv.FormatFloat(h.Score, 'f', -1, 64)
		if b.Len()+len(one) > most {
			b.WriteString(", and " + strconv.Itoa(len(hits)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(one)
	}
	return b.String()
}

package content

import "sluice/pipeline/mime"

// limitsOfMIME are limits of the parser that keep us from seeing all of a mail, by the anomaly that says so.
var limitsOfMIME = map[string]string{
	mime.KindTooDeep: "mime_depth", mime.KindManyParts: "mime_parts", mime.KindManyFiles: "mime_parts", mime.KindTextCut: "mime_text",
	mime.KindTooMuchContent: "content", mime.KindLargeHeader: "header_size", mime.KindUnreadableMessage: "mime_text", mime.KindMore: "anomalies",
}

// odd takes over what the parser found wrong with the mail.
func odd(m *mime.Message, r reached) (list []Odd) {
	all := m.Anomalies()
	if len(all) == 0 {
		return nil
	}
	list = make([]Odd, len(all))
	for i, a := range all {
		list[i] = Odd{Kind: a.Kind, Part: a.Part, What: clip(a.What, longestName)}
		if limit := limitsOfMIME[a.Kind]; limit != "" {
			r.add(limit)
		}
	}
	return list
}

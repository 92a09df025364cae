package content

// A Fact is what rules see of a mail's content. Lists are bounded, counts are not.
type Fact struct {
	// Attachments are the files of the mail, at most limits.attachments.
	Attachments []File `json:"attachments" expr:"attachments"`
	// AttachmentCount is how many files there are, listed or not.
	AttachmentCount int `json:"attachment_count" expr:"attachment_count" example:"20"`
	// HTML is what the HTML parts do.
	HTML HTML `json:"html" expr:"html"`
	// Sender is what is odd about the names the mail gives for who sent it.
	Sender Sender `json:"sender" expr:"sender"`
	// DateSkew is how many seconds Date is ahead of our clock when the mail came; below zero it is behind. Without a
	// Date that can be read it is unknown.
	DateSkew int `json:"date_skew" expr:"date_skew" example:"86_400"`
	// Script is the script most letters of subject and text belong to: Latin, Cyrillic, Han; "" without letters.
	Script string `json:"script" expr:"script" example:"Cyrillic"`
	// Scripts are all scripts, those with most letters first, at most 10.
	Scripts []Script `json:"scripts" expr:"scripts"`
	// MixedScripts: a word mixes letters of scripts that look alike, as Latin and Cyrillic do.
	MixedScripts bool `json:"mixed_scripts" expr:"mixed_scripts"`
	// MixedWords are such words, at most 10.
	MixedWords []string `json:"mixed_words" expr:"mixed_words" example:"pаypal"`
	// ZeroWidth is how many characters of subject and text take no room: zero-width spaces, soft hyphens, directions of
	// writing. Those that Arabic, Indic scripts and emoji need are not counted.
	ZeroWidth int `json:"zero_width" expr:"zero_width" example:"20"`
	// NonASCII is how many percent of the characters of subject and text are beyond ASCII.
	NonASCII int `json:"non_ascii" expr:"non_ascii" example:"50"`
	// Language is the language of the text as ISO 639 has it: en, de, ja; "" where that is not clear.
	Language string `json:"language" expr:"language" example:"ja"`
	// Odd is what is wrong with the mail as such: its header, its lines, its MIME structure.
	Odd []Odd `json:"odd" expr:"odd"`
	// Limits are the limits that were reached, in the order of their names: what lies beyond them was not looked at.
	Limits []string `json:"limits" expr:"limits" example:"attachments"`
}

// A File is one attachment.
type File struct {
	// Name is the name it has in the mail, at most 255 characters.
	Name string `json:"name" expr:"name"`
	// Extension is what stands behind the last dot of the name, in lower case: exe.
	Extension string `json:"extension" expr:"extension" example:"exe"`
	// Type is the type that the mail claims: application/pdf.
	Type string `json:"type" expr:"type" example:"application/pdf"`
	// Real is what the content is: pdf, pe, zip, docx, text; "" for what is not known.
	Real string `json:"real" expr:"real" example:"pe"`
	// Size is its size, decoded, in octets.
	Size int `json:"size" expr:"size"`
	// SHA256 is the SHA-256 of the decoded content, in hex; "" where a limit kept us from working it out.
	SHA256 string `json:"sha256" expr:"sha256" example:"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`
	// Executable: it can be run, by what it is or by a dangerous extension.
	Executable bool `json:"executable" expr:"executable"`
	// DangerousExtension: its extension is one of those configured.
	DangerousExtension bool `json:"dangerous_extension" expr:"dangerous_extension"`
	// DoubleExtension: a harmless extension stands before one that is not: invoice.pdf.exe.
	DoubleExtension bool `json:"double_extension" expr:"double_extension"`
	// TypeMismatch: its content is of another family than its name or the claimed type says.
	TypeMismatch bool `json:"type_mismatch" expr:"type_mismatch"`
	// BidiName: its name turns the direction of writing, so that another extension is seen.
	BidiName bool `json:"bidi_name" expr:"bidi_name"`
	// Macro: it is a document with macros.
	Macro bool `json:"macro" expr:"macro"`
	// AutoExec are the macros that run by themselves, in lower case: document_open; at most 20.
	AutoExec []string `json:"autoexec" expr:"autoexec" example:"document_open"`
	// Encrypted: it, or a part of it, cannot be read without a password.
	Encrypted bool `json:"encrypted" expr:"encrypted"`
	// Features are other things it has: activex, data_html, dde, embedded_file, encrypted_names, event_handler,
	// external_template, form, javascript, launch, link_mismatch, ole_object, open_action, password, refresh,
	// remote_object, rich_media, script, submit_form, xfa, xlm.
	Features []string `json:"features" expr:"features" example:"javascript"`
	// Embedded are the files inside a document, at most 20.
	Embedded []string `json:"embedded" expr:"embedded" example:"setup.exe"`
	// Archive is what is inside an archive.
	Archive Archive `json:"archive" expr:"archive"`
	// Incomplete says why not all of it was looked into; "" if it was.
	Incomplete string `json:"incomplete" expr:"incomplete"`
	// Damaged says what is broken about it; "" for nothing.
	Damaged string `json:"damaged" expr:"damaged"`
}

// An Archive is what is inside an archive and the archives in it.
type Archive struct {
	// Count is how many files were found inside, listed or not.
	Count int `json:"count" expr:"count" example:"100"`
	// Members are the files inside; limits.members bounds them for all archives of a mail together.
	Members []Member `json:"members" expr:"members"`
	// Size is the size of what is inside as the archive states it, in octets.
	Size int `json:"size" expr:"size"`
	// Depth is how many archives lie in each other: 1 for one that holds none.
	Depth int `json:"depth" expr:"depth" example:"3"`
	// Executable: one of the files inside can be run.
	Executable bool `json:"executable" expr:"executable"`
	// DoubleExtension: one of the files inside has a harmless extension before one that is not.
	DoubleExtension bool `json:"double_extension" expr:"double_extension"`
	// Macro: one of the files inside is a document with macros.
	Macro bool `json:"macro" expr:"macro"`
}

// A Member is one file in an archive.
type Member struct {
	// Name is its path, with those of the archives around it before it: inner.zip/setup.exe; at most 255 characters.
	Name string `json:"name" expr:"name"`
	// Real is what the content is; "" where it is not known or cannot be read.
	Real string `json:"real" expr:"real" example:"pe"`
	// Size is its size as the archive states it, in octets; -1 where it does not.
	Size int `json:"size" expr:"size"`
	// Packed is how many octets it takes in the archive; -1 where that is not known.
	Packed int `json:"packed" expr:"packed"`
	// Depth is 1 in the archive that is attached, 2 in one inside it.
	Depth int `json:"depth" expr:"depth" example:"3"`
	// Encrypted: it cannot be read without a password.
	Encrypted bool `json:"encrypted" expr:"encrypted"`
	// Executable: it can be run, by what it is or by a dangerous extension.
	Executable bool `json:"executable" expr:"executable"`
	// DoubleExtension: a harmless extension stands before one that is not.
	DoubleExtension bool `json:"double_extension" expr:"double_extension"`
	// Macro: it is a document with macros.
	Macro bool `json:"macro" expr:"macro"`
}

// HTML is what the HTML parts of a mail do.
type HTML struct {
	// Present: there are HTML parts.
	Present bool `json:"present" expr:"present"`
	// HiddenText is how many letters and digits the reader does not see.
	HiddenText int `json:"hidden_text" expr:"hidden_text" example:"200"`
	// HiddenHow are the ways they are hidden: clipped, colour, display, opacity, position, size, visibility.
	HiddenHow []string `json:"hidden_how" expr:"hidden_how" example:"colour"`
	// HiddenSample is the beginning of it, at most 200 characters.
	HiddenSample string `json:"hidden_sample" expr:"hidden_sample"`
	// VisibleText is how many letters and digits the reader sees.
	VisibleText int `json:"visible_text" expr:"visible_text" example:"100"`
	// Links is how many links there are.
	Links int `json:"links" expr:"links" example:"50"`
	// LinkMismatch: a link shows the name of another site than the one it goes to.
	LinkMismatch bool `json:"link_mismatch" expr:"link_mismatch"`
	// Mismatches are such links, at most 10.
	Mismatches []Mismatch `json:"mismatches" expr:"mismatches"`
	// LinkUserinfo: a link has a name before an @, which looks like the site it goes to: https://bank.example@evil.example/.
	LinkUserinfo bool `json:"link_userinfo" expr:"link_userinfo"`
	// Form: there is a form.
	Form bool `json:"form" expr:"form"`
	// FormForeign: a form sends what is filled in to another site than the sender's.
	FormForeign bool `json:"form_foreign" expr:"form_foreign"`
	// FormActions are where forms send what is filled in, at most 10.
	FormActions []string `json:"form_actions" expr:"form_actions" example:"https://evil.example/login"`
	// Password: a form asks for a password.
	Password bool `json:"password" expr:"password"`
	// Script: there is a script, or a link that is one.
	Script bool `json:"script" expr:"script" example:"Cyrillic"`
	// SVGScript: an SVG image has a script or a handler of events.
	SVGScript bool `json:"svg_script" expr:"svg_script"`
	// EventHandlers is how many handlers of events there are: onclick, onload.
	EventHandlers int `json:"event_handlers" expr:"event_handlers" example:"5"`
	// Images is how many images there are, RemoteImages how many of them are fetched from elsewhere.
	Images int `json:"images" expr:"images" example:"10"`
	// RemoteImages is how many images are fetched from elsewhere.
	RemoteImages int `json:"remote_images" expr:"remote_images" example:"10"`
	// TrackingPixels is how many of those cannot be seen.
	TrackingPixels int `json:"tracking_pixels" expr:"tracking_pixels" example:"1"`
	// Frames is how many frames, objects and applets there are.
	Frames int `json:"frames" expr:"frames" example:"1"`
	// Base is where all relative links lead, if the HTML says so.
	Base string `json:"base" expr:"base"`
	// Refresh is where the HTML leads by itself.
	Refresh string `json:"refresh" expr:"refresh"`
	// DataURIs is how many links and images carry their content themselves.
	DataURIs int `json:"data_uris" expr:"data_uris" example:"10"`
	// DataHTML: one of those is a page, or another thing that can carry a script.
	DataHTML bool `json:"data_html" expr:"data_html"`
}

// A Mismatch is a link that shows another site than it goes to.
type Mismatch struct {
	// Shown is what the reader sees, Goes where the link goes: names of hosts.
	Shown string `json:"shown" expr:"shown" example:"bank.example"`
	// Goes is the host that the link goes to.
	Goes string `json:"goes" expr:"goes" example:"evil.example"`
}

// Sender is what is odd about the names a mail gives for who sent it.
type Sender struct {
	// Lookalike is the protected domain that a domain of the sender looks like without being it; "" for none.
	Lookalike string `json:"lookalike" expr:"lookalike" example:"bank.example"`
	// LookalikeHow says how: confusable (letters that look alike), typo (one letter off), tld (under another top-level
	// domain), embedded (it stands inside the name), scripts (a label mixes scripts).
	LookalikeHow string `json:"lookalike_how" expr:"lookalike_how" example:"confusable"`
	// LookalikeDomain is the domain that looks so, LookalikeIn the field it stands in: From, Sender, Reply-To, envelope.
	LookalikeDomain string `json:"lookalike_domain" expr:"lookalike_domain" example:"bаnk.example"`
	// LookalikeIn is the field that it stands in: From, Sender, Reply-To, envelope.
	LookalikeIn string `json:"lookalike_in" expr:"lookalike_in" example:"From"`
	// MixedScripts: a label of the domain in From mixes scripts that look alike.
	MixedScripts bool `json:"mixed_scripts" expr:"mixed_scripts"`
	// NonASCII: the domain in From has characters beyond ASCII.
	NonASCII bool `json:"non_ascii" expr:"non_ascii" example:"50"`
	// NameHasAddress: the display name in From holds an address that is not the one the mail is from.
	NameHasAddress bool `json:"name_has_address" expr:"name_has_address"`
	// NameAddress is that address.
	NameAddress string `json:"name_address" expr:"name_address" example:"info@bank.example"`
	// NameProtected is the protected name that the display name in From is, or looks like, with a foreign address.
	NameProtected string `json:"name_protected" expr:"name_protected" example:"Bank"`
	// ReplyToForeign: Reply-To has an address of another organisation than From.
	ReplyToForeign bool `json:"reply_to_foreign" expr:"reply_to_foreign"`
}

// A Script is a script of writing and how many letters of the text are in it.
type Script struct {
	// Name is what Unicode calls it: Latin.
	Name string `json:"name" expr:"name"`
	// Letters is how many letters are in it.
	Letters int `json:"letters" expr:"letters" example:"100"`
}

// An Odd is something wrong with the mail, or so unusual that readers differ in what they make of it.
type Odd struct {
	// Kind is what it is: no-boundary, bare-cr, duplicate-field.
	Kind string `json:"kind" expr:"kind" example:"no-boundary"`
	// Part is the part it is about: 1.2; "" is the message, or its header.
	Part string `json:"part" expr:"part" example:"1.2"`
	// What is the field, the line or the value it is about.
	What string `json:"what" expr:"what" example:"Subject"`
}

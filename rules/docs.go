package rules

// nameDocs says what the names of the transaction are. Each example holds for the mail of TestExamplesHold.
func nameDocs() []Entry {
	docs := []Entry{
		{Name: "client.ip", Doc: "the address that connected; unknown where the door is not told", Example: `client.ip == "192.0.2.7"`},
		{Name: "client.name", Doc: "what the address resolves to and back; unknown where the DNS did not say", Example: `client.name endsWith ".news.example"`},
		{Name: "client.login", Doc: `the account that logged in, "" for none`, Example: `client.login == ""`},
		{Name: "client.trusted", Doc: "whether it is in a trusted network", Example: `not client.trusted`},
		{Name: "client.tls", Doc: `the version of TLS; "" over cleartext`, Example: `client.tls in ["TLSv1.2", "TLSv1.3"]`},
		{Name: "helo", Doc: "how the client greeted", Example: `helo != client.name`},
	}
	docs = append(docs, addressDocs("from.", "of the envelope's sender, \"\" for none", `from.address endsWith "@news.example"`,
		`from.local startsWith "bounce"`, `from.tag == "42"`, `from.domain != header_from.domain`)...)
	docs = append(docs, addressDocs("rcpt.", "of the recipient; the rule is asked for each", `rcpt.address == "user+lists@example.org"`,
		`rcpt.local == "user"`, `rcpt.tag == "lists"`, `rcpt.domain == "example.org"`)...)
	docs = append(docs, Entry{Name: "rcpts", Doc: "all recipients", Example: `len(rcpts) > 1`})
	docs = append(docs, addressDocs("#.", "of one", `any(rcpts, .address == "info@example.org")`, `none(rcpts, .local == "postmaster")`,
		`any(rcpts, .tag != "")`, `all(rcpts, .domain == "example.org")`)...)
	docs = append(docs, Entry{Name: "header_from.name", Doc: "the name of the first author in From, decoded", Example: `header_from.name contains "Bank"`})
	docs = append(docs, addressDocs("header_from.", "of the first author", `header_from.address == "jane.doe@bank.example"`,
		`header_from.local == "jane.doe"`, `header_from.tag == ""`, `header_from.domain == "bank.example"`)...)
	docs = append(docs,
		Entry{Name: "header_from.count", Doc: "how many addresses the From fields hold", Example: `header_from.count == 1`},
		Entry{Name: "header_froms", Doc: "all authors in From", Example: `len(header_froms) == 1`},
		Entry{Name: "#.name", Doc: "the name of one, decoded", Example: `any(header_froms, .name contains "Bank")`})
	docs = append(docs, addressDocs("#.", "of one", `none(header_froms, .address == "")`, `any(header_froms, .local == "jane.doe")`,
		`all(header_froms, .tag == "")`, `all(header_froms, .domain == "bank.example")`)...)
	docs = append(docs,
		Entry{Name: "subject", Doc: "decoded; \"\" if there is none", Example: `subject startsWith "Grüße"`},
		Entry{Name: "message_id", Doc: "the Message-ID without angle brackets", Example: `message_id endsWith "@news.example"`},
		Entry{Name: "list_id", Doc: "what List-Id has in angle brackets, in lower case", Example: `list_id == "offers.bank.example"`},
		Entry{Name: "size", Doc: "of the message, in octets", Example: `size < 100_000`},
		Entry{Name: "score", Doc: "what the rules of the step add that do not read it; unknown where some of them could not be asked", Example: `score >= 3`},
		Entry{Name: "text", Doc: "what there is to read, decoded: plain text, or what a reader sees of the HTML", Example: `text contains "free offer"`},
		Entry{Name: "html", Doc: "the source of the HTML parts, decoded", Example: `html contains "<form"`},
		Entry{Name: "attachments", Doc: "the files of the mail", Example: `len(attachments) == 2`},
		Entry{Name: "#.name", Doc: "the name of one", Example: `any(attachments, .name == "Invoice.PDF.exe")`},
		Entry{Name: "#.extension", Doc: "what stands behind its last dot, in lower case", Example: `any(attachments, .extension in ["exe", "scr"])`},
		Entry{Name: "#.type", Doc: "the type that the mail claims", Example: `any(attachments, .type == "application/pdf" and .extension != "pdf")`},
		Entry{Name: "#.size", Doc: "its size, decoded, in octets", Example: `all(attachments, .size < 1000)`},
		Entry{Name: "#.sha256", Doc: "of its content, in hex; \"\" where a limit kept us from working it out", Example: `none(attachments, .sha256 == "")`},
		Entry{Name: "links", Doc: "the URLs of text and HTML: http, https and ftp", Example: `len(links) > 2`},
		Entry{Name: "#.url", Doc: "one as it is written", Example: `any(links, .url contains "/login.php")`},
		Entry{Name: "#.host", Doc: "the host that it leads to, an address or a name as addresses have them", Example: `any(links, .host == "198.51.100.1")`},
		Entry{Name: "#.domain", Doc: "the organisational domain of that", Example: `any(links, .domain == "evil.example")`},
		Entry{Name: "#.text", Doc: "what the HTML shows for it; \"\" where it stands in the text itself", Example: `any(links, .text contains "bank.example" and .domain != "bank.example")`},
		Entry{Name: "anomalies", Doc: "what is wrong with the mail as such; `go doc -all ./pipeline/mime` has them, behind Kind…", Example: `"bare-lf" in anomalies`})
	docs = append(docs, timeDocs("date", "of the Date field, unknown where that is missing or cannot be read", "in the zone of the Date field",
		`date > received + days(2)`, `date.year == 2026`, `date.month == 11`, `date.day == 27`, `date.weekday == "friday"`, `date.hour == 3`, `date.minute >= 30`)...)
	docs = append(docs, Entry{Name: "date.zone", Doc: "minutes that this zone is east of UTC", Example: `date.zone == 330`})
	return append(docs, timeDocs("received", "of when the mail came: the only clock that rules have", "in the zone of the setting `timezone`",
		`received - date < -days(2)`, `received.year == 2026`, `received.month == 11`, `received.day in 15..21`,
		`received.weekday in ["saturday", "sunday"]`, `received.hour >= 22 or received.hour < 6`, `received.minute < 30`)...)
}

func addressDocs(name, of string, address, local, tag, domain string) []Entry {
	return []Entry{
		{Name: name + "address", Doc: "the address " + of, Example: address},
		{Name: name + "local", Doc: "what stands before its @, without the subaddress", Example: local},
		{Name: name + "tag", Doc: "its subaddress: lists in user+lists@example.org", Example: tag},
		{Name: name + "domain", Doc: "what stands behind its @", Example: domain},
	}
}

func timeDocs(name, of, zone string, unix, year, month, day, weekday, hour, minute string) []Entry {
	return []Entry{
		{Name: name + ".unix", Doc: "seconds since 1970 " + of + "; `" + name + "` alone means them in arithmetic", Example: unix},
		{Name: name + ".year", Doc: "the year, " + zone, Example: year},
		{Name: name + ".month", Doc: "1 to 12, " + zone, Example: month},
		{Name: name + ".day", Doc: "1 to 31, " + zone, Example: day},
		{Name: name + ".weekday", Doc: "monday to sunday, " + zone, Example: weekday},
		{Name: name + ".hour", Doc: "0 to 23, " + zone, Example: hour},
		{Name: name + ".minute", Doc: "0 to 59, " + zone, Example: minute},
	}
}

// functionDocs says what the functions do.
func functionDocs() []Entry {
	const truth, text, number, texts = "true or false", "text", "a number", "a list of texts"
	return []Entry{
		{`has("Field")`, truth, "whether the header has the field", `has("List-Id")`},
		{`header("Field")`, text, `the first field of the name, decoded; "" if there is none`, `header("X-Mailer") contains "Mass"`},
		{`headers("Field")`, texts, "all fields of the name, decoded", `any(headers("Received"), # contains "dialup")`},
		{`hit("rule")`, truth, "whether another rule held, further up or down", `hit("from_bank") and not hit("friend")`},
		{`hit("step.rule")`, truth, "whether a rule of an earlier step held", `hit("early.known_sender")`},
		{"known(name)", truth, "whether something of the mail is known", `has("Date") and known(date)`},
		{"known(step)", truth, "whether the step has an answer", `not known(dmarc) and known(spf)`},
		{"known(step.field)", truth, "whether the step has this answer", `known(spf.result) and spf.result == "fail"`},
		{"count_in(text, list)", number, "how many entries of a named list of words or regexes the text holds", `count_in(text, spam_words) >= 2`},
		{"org(domain)", text, "the organisational domain, by the public suffix list; \"\" for what is no domain", `org(client.name) == "news.example"`},
		{"same_org(domain, domain)", truth, "whether both have one organisational domain", `same_org(from.domain, client.name)`},
		{"under(domain, domains…)", truth, "whether it is one of these or below one", `under(client.name, "news.example", "example.net")`},
		{"in_network(ip, networks…)", truth, "whether an address is in one of these; false for what is no address", `in_network(client.ip, "192.0.2.0/24", "2001:db8::/32")`},
		{"host(url)", text, "the host that a URL leads to, also of one that begins with www.; \"\" for what is none, such as a bare name, which may as well be that of a file (content.html.link_mismatch makes out which)", `any(links, host(.text) == "bank.example" and .host != host(.text))`},
		{"unicode(domain)", text, "as people write it, and as addresses have it here; \"\" for what is no domain", `unicode("xn--bcher-kva.example") == "bücher.example"`},
		{"ascii(domain)", text, "as the DNS has it; \"\" for what is no domain", `ascii("Bücher.example") == "xn--bcher-kva.example"`},
		{
			"looks_like(domain, domains…)", truth,
			"whether it looks like one of these and is none: letters that look alike, one letter off, another top-level domain, one inside its name",
			`looks_like("bank-login.example", header_from.domain)`,
		},
		{"mixed_scripts(text)", truth, "whether a word mixes letters of scripts that look alike: Latin, Cyrillic, Greek, Armenian", `mixed_scripts("pаypal")`},
		{"entropy(text)", number, "how random it is, in bits a character: 0 for one letter again and again, above 4 for most passwords", `entropy(from.local) > 2.5`},
		{"similarity(text, text)", number, "how alike two names are, from 0 to 1; case, punctuation and the order of words do not count", `similarity("Doe, Jane", header_from.local) > 0.9`},
		{"other_address(name, address)", text, "the address in a display name that is not the real one; \"\" for none", `other_address(header_from.name, header_from.address) == "info@paypal.example"`},
		{"has_word(text, words…)", truth, "whether one of these stands there as a word or phrase; case does not matter, nor what white space is between", `has_word(subject, "grüße", "free")`},
		{"count_matches(text, pattern)", number, "how often a pattern matches, at most 1000 times", `count_matches(text, "(?i)free") == 2`},
		{"days(number)", number, "as seconds, to be compared with times", `date - received > days(2)`},
		{"hours(number)", number, "as seconds", `hours(1.5) == minutes(90)`},
		{"minutes(number)", number, "as seconds", `received - date < minutes(10)`},
		{"len(text or list)", number, "how many characters or items", `len(subject) > 10 and len(headers("Received")) == 2`},
		{"lower(text)", text, "in lower case", `lower(text) contains "free offer"`},
		{"upper(text)", text, "in upper case", `upper(subject) != subject`},
		{"trim(text)", text, "without space at both ends; trim(text, chars) without these", `trim(" x ") == "x" and trim("[x]", "[]") == "x"`},
		{"trimPrefix(text, begin)", text, "without this beginning", `trimPrefix(client.name, "mx.") == from.domain`},
		{"trimSuffix(text, end)", text, "without this end", `trimSuffix(helo, ".example") == "mail.news"`},
		{"hasPrefix(text, begin)", truth, "as startsWith", `hasPrefix(helo, "mail.")`},
		{"hasSuffix(text, end)", truth, "as endsWith", `hasSuffix(helo, ".example")`},
		{"indexOf(text, part)", number, "before which character the part first begins, counted from 0; -1 for nowhere", `indexOf(subject, "!") > 0`},
		{"lastIndexOf(text, part)", number, "before which it last begins", `lastIndexOf(subject, "!") > indexOf(subject, "!")`},
		{"any(list, condition)", truth, "whether it holds for an item, which is called #; .name is a field of it", `any(attachments, .extension == "exe")`},
		{"all(list, condition)", truth, "whether it holds for every item", `all(rcpts, .domain == "example.org")`},
		{"none(list, condition)", truth, "whether it holds for no item", `none(links, .host == "")`},
		{"one(list, condition)", truth, "whether it holds for exactly one item", `one(attachments, .type == "application/pdf")`},
		{"count(list, condition)", number, "for how many items it holds", `count(links, .domain != header_from.domain) > 1`},
		{"abs(number)", number, "without its sign", `abs(date - received) > hours(1)`},
		{"min(numbers…)", number, "the smallest", `min(size, 50) == 50`},
		{"max(numbers…)", number, "the largest", `max(len(links), len(attachments)) < 100`},
		{"int(value)", number, "as a whole number; unknown for text that is none", `int(header("X-Priority")) <= 2`},
		{"float(value)", number, "as a number with a fraction; unknown for text that is none", `float(header("X-Spam-Score")) > 7.5`},
		{"string(value)", text, "as text", `header("Date") contains string(date.year)`},
	}
}

// operatorDocs says what the operators do.
func operatorDocs() []Entry {
	const truth, number = "true or false", "a number"
	return []Entry{
		{"and or not", truth, "join terms; an unknown side counts only where it matters", `has("List-Id") and not (spf.result == "pass" or size < 10)`},
		{"== !=", truth, "equal or not; addresses are in lower case", `from.domain != header_from.domain`},
		{"< <= > >=", truth, "in order, of numbers or texts", `size >= 100`},
		{"in", truth, "whether something is in a list", `rcpt.local in ["user", "info"]`},
		{"in list", truth, "whether an address, a domain or an IP address is in a named list", `client.ip in our_networks`},
		{"contains startsWith endsWith", truth, "whether a text holds another", `subject contains "!!"`},
		{"contains list", truth, "whether a text has a word of a named list", `text contains spam_words`},
		{"matches", truth, "whether a text matches an RE2 pattern", `subject matches "(?i)\\bgrüße\\b"`},
		{"matches list", truth, "whether a text matches a pattern of a named list", `subject matches scams`},
		{"+ - * / %", number, "arithmetic", `size / 1024 + len(links) < 100`},
		{"a..b", "a list of numbers", "from a to b, both written out", `received.hour in 22..23`},
		{"condition ? a : b", "", "one of two values", `size > (has("List-Id") ? 100 : 100_000)`},
		{"let x = value; …", "", "gives a value a name", `let d = org(client.name); d == org(from.domain) or d == org(helo)`},
	}
}

// Package rules is the rule language: conditions on what is known about a mail, and what shall become of the mail where
// they hold. Scanners find facts; rules are where a site says what it thinks of them.
//
// A rule file:
//
//	rules:
//	  - name: forged_bank
//	    when: header_from.domain == "bank.example" and dmarc.result == "fail"
//	    reject: 5.7.1 this sender publishes a policy that the message fails
//	  - name: newsletters
//	    when: has("List-Id")
//	    file: Lists
//
// A file may name others whose rules come before its own, relative to it, each read once:
//
//	include: [lists/*.yaml, people.yaml]
//
// A condition sees the transaction and what the steps before its own have found:
//
//	client.ip  .name  .login  .trusted  .tls   who is connected; ip is text, tls is "TLSv1.3" or ""
//	helo                                  how the client greeted
//	from  rcpt  header_from               each .address .local .tag .domain, in lower case; .local is without the subaddress
//	header_from.name  .count              what From shows; how many addresses it holds: header_from itself is the first
//	rcpts  header_froms                   lists of all of them
//	subject  message_id  list_id  size    decoded, the first 16 KiB (max_value); octets of the message
//	text  html                            what there is to read, and the source of the HTML, decoded; 256 KiB each (max_text)
//	links                                 each .url .host .domain .text; .text is what the HTML shows for it
//	attachments                           each .name .extension .type .size .sha256
//	anomalies                             what is wrong with the mail as such: "bare-lf", "no-boundary"
//	date  received                        the Date field, and when the mail came, which is the only clock: .unix .year .month
//	                                      .day .weekday .hour .minute; alone they are seconds: date > received + days(2)
//	score                                 what the rules of the step have scored, groups within their bounds
//	has("Field")  header("Field")         whether there is such a field; the first one decoded, "" if there is none
//	headers("Field")                      all of that name
//	hit("rule")  hit("step.rule")         whether another rule, or one of an earlier step, held
//	known(name)  known(step.field)        whether it is known, or has an answer
//	dnsbl.zen.listed, spf.result, …       the facts of earlier steps, under the step's name
//
// Functions compare domains (under, org, same_org, looks_like), addresses of clients (in_network), names (similarity,
// other_address, mixed_scripts, entropy) and words (has_word, count_matches). `sluice reference --rules` lists them, and all
// names and operators, with an example for each.
//
// Lists are asked with any(links, .domain == "example.org") and its like; at most 500 items of each are seen (max_items). One
// inside another asks a list that the item has: any(content.attachments, any(.archive.members, .executable)). What
// the body holds is worked out when the first term is evaluated that asks for it, once a mail: a rule that asks something
// cheap first, "a and b", costs nothing where that does not hold. lower(text) is worked out once, too.
//
// hit() may ask for a rule further up or down: the order of evaluation is worked out, and rules that ask for each other in a
// circle are an error. The order of decision is the written one. score is the sum of the hits of the step's rules, those of
// a group (`group: name` in a rule, `groups:` in the file or the step) within the group's max and min. A rule that reads
// it, or asks for the hit of one that does, has no score, and waits for the last rule that has one. Where a stage of rules
// that score failed the score is unknown; a rule that is undecided adds nothing.
//
// `shadow: true` in a rule, in a group or at the top of a file makes trials: evaluated and recorded, never acted on. No live
// rule can ask for the hit of one.
//
// `overrides:` of a file or of the step say what is otherwise for domains and users: thresholds, rules that are off or on,
// scores, bounds of groups, and rules that are there for these recipients only, behind all others. What is said for a user
// goes over what is said for the domain; what is said twice for one of them is an error. A rule that is off does not hold,
// for hit() as well.
//
// What is not known is neither true nor false, and conditions follow three-valued logic: "unknown or true" is true,
// "unknown and false" is false, everything else that needs an unknown is unknown. A rule whose condition is unknown does
// not hold; the record says why.
//
// What a door does not tell about the client is unknown: its name where the DNS did not say, or was not asked, as about
// trusted clients. Without an address client.ip, .name and .tls are unknown; client.login and client.trusted are too,
// unless the door says that there is a login or that the client is trusted. An empty greeting is unknown. A null sender is
// known: from.address is "". So is a header without an address in From: header_from.address is "" and header_from.count
// is 0. With several addresses header_from is the first, and a rule that wants to be sure asks for header_from.count == 1.
// A mail without links has none; but date is unknown where there is no Date, or none that can be read, and so is whatever of
// the mail could not be read from disk.
//
// A term is what and, or and not join; each has one truth of its own, which the record keeps. known() and hit() are terms
// by themselves. A comparison, a ternary, a let and any() with its like are one term each, whatever is inside: unknown if
// anything it reads is. So is a term that fails while it runs, an index out of range say.
//
// With `shadow: true` a rule, a group or a whole file is tried: asked about all mail once the door has answered, recorded, and
// never counted. Such rules see everything, and each other; a rule that counts reads neither their hits nor what shadow
// steps find.
//
// Named lists stand under `lists:` in a rule file or in the step, each with a kind, and entries in files (one a line; #
// begins a comment) or as values:
//
//	lists:
//	  vips: {kind: addresses, files: [vips.txt]}
//
//	from.address in vips           addresses: user@example.org, or @example.org for all there
//	from.domain in partners        domains: example.org, or .example.org for its sub-domains
//	client.ip in office            networks: 192.0.2.0/24, 2001:db8::/32, or one address
//	subject contains spam_words    words and phrases, whole, in any case; in asks whether a text is one
//	text matches scams             regexes: patterns as matches takes them
//	count_in(text, spam_words)     how many entries of words or regexes the text holds
//
// Conditions are parsed and run by expr-lang/expr, behind a checker of this package: a small list of functions and
// operators whose cost is bounded, so that no rule can eat the memory or the time of the server.
package rules

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
// A condition sees the transaction and what the steps before its own have found:
//
//	client.ip  .name  .login  .trusted    who is connected; ip is text
//	helo                                  how the client greeted
//	from  rcpt  header_from               each .address .local .tag .domain, in lower case; .local is without the subaddress
//	header_from.count                     how many addresses the From fields hold; header_from itself is the first of them
//	subject  size                         decoded, its first 16 KiB (max_value); octets of the message
//	score                                 what the rules of the step have scored, groups within their bounds
//	has("Field")  header("Field")         whether there is such a field; the first one decoded, as subject is, "" if there is none
//	hit("rule")  hit("step.rule")         whether another rule, or one of an earlier step, held
//	known(step)  known(step.field)        whether there is an answer
//	dnsbl.zen.listed, spf.result, …       the facts of earlier steps, under the step's name
//
// What is not known is neither true nor false, and conditions follow three-valued logic: "unknown or true" is true,
// "unknown and false" is false, everything else that needs an unknown is unknown. A rule whose condition is unknown does
// not hold; the record says why.
//
// What a door does not tell about the client is unknown: its name where the DNS did not say, or was not asked, as about
// trusted clients. Without an address client.ip and client.name are unknown; client.login and client.trusted are too,
// unless the door says that there is a login or that the client is trusted. An empty greeting is unknown. A null sender is
// known: from.address is "". So is a header without an address in From: header_from.address is "" and header_from.count
// is 0. With several addresses header_from is the first, and a rule that wants to be sure asks for header_from.count == 1.
//
// A term is what and, or and not join; each has one truth of its own, which the record keeps. known() and hit() are terms
// by themselves. A comparison, a ternary, a let and any() with its like are one term each, whatever is inside: unknown if
// anything it reads is. So is a term that fails while it runs, an index out of range say.
//
// Conditions are parsed and run by expr-lang/expr, behind a checker of this package: a small list of functions and
// operators whose cost is bounded, so that no rule can eat the memory or the time of the server.
package rules

-- Messages that are given up at every stage, and the one after, of which nothing of the others is left.
dofile(LIB)

local conn = open()
client(conn, "mail.example", "192.0.2.7")
helo(conn, "mail.example")

local stages = {
	function() end,
	function() rcpt(conn, "<bob@example.org>") end,
	function() check(mt.data(conn) == nil, "data") end,
	function() field(conn, "Subject", "a bank") end,
	function() check(mt.eoh(conn) == nil, "eoh") end,
	function() check(mt.bodystring(conn, "half a text") == nil, "body") end,
}
for last = 1, #stages do
	from(conn, "<given-up@sender.example>")
	for n = 1, last do
		stages[n]()
	end
	check(mt.abort(conn) == nil, "abort")
end
-- after a message that was answered, and when there is none
check(mt.abort(conn) == nil, "abort")
from(conn, "<kept@sender.example>")
rcpt(conn, "<me@example.org>")
content(conn, "hello", "kept")
expect(conn, SMFIR_ACCEPT, "kept")
check(mt.abort(conn) == nil, "abort")
from(conn, "<kept@sender.example>")
rcpt(conn, "<me@example.org>")
content(conn, "a bank", "refused")
expect(conn, SMFIR_REPLYCODE, "refused")
check(mt.abort(conn) == nil, "abort")
from(conn, "<kept@sender.example>")
rcpt(conn, "<me@example.org>")
content(conn, "hello", "again")
expect(conn, SMFIR_ACCEPT, "again")

-- An MTA that vanishes in the middle of a message, and one that begins another without an end to the first.
from(conn, "<lost@sender.example>")
rcpt(conn, "<me@example.org>")
from(conn, "<other@sender.example>")
rcpt(conn, "<me@example.org>")
mt.disconnect(conn, false)
mt.echo("passed")

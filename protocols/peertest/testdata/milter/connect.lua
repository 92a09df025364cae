-- Refusals of the client, its greeting and the sender. EARLIEST is "yes" or "no": whether they are spoken at once, or at RCPT.
dofile(LIB)

local now, at_rcpt = SMFIR_CONTINUE, SMFIR_REPLYCODE
if EARLIEST == "yes" then
	now = SMFIR_REPLYCODE
end

local conn = open()
client(conn, "listed.example", "192.0.2.66", now)
if now == SMFIR_CONTINUE then
	helo(conn, "listed.example")
	from(conn, "<a@sender.example>")
	rcpt(conn, "<me@example.org>", at_rcpt)
	rcpt(conn, "<you@example.org>", at_rcpt)
	check(mt.abort(conn) == nil, "abort")
end
mt.disconnect(conn)

conn = open()
client(conn, "mail.example", "192.0.2.7")
helo(conn, "bad.example", now)
if now == SMFIR_CONTINUE then
	from(conn, "<a@sender.example>")
	rcpt(conn, "<me@example.org>", at_rcpt)
	check(mt.abort(conn) == nil, "abort")
end
-- Another greeting, and the client is welcome.
helo(conn, "mail.example")
from(conn, "<a@sender.example>")
rcpt(conn, "<me@example.org>")
check(mt.abort(conn) == nil, "abort")
-- A sender who shall come back later, then another.
from(conn, "<a@later.example>", now)
if now == SMFIR_CONTINUE then
	rcpt(conn, "<me@example.org>", at_rcpt)
end
check(mt.abort(conn) == nil, "abort")
from(conn, "<b@sender.example>")
rcpt(conn, "<me@example.org>")
content(conn, "hello", "welcome")
expect(conn, SMFIR_ACCEPT, "eom")
mt.disconnect(conn)

-- An IPv6 client, and one of whom nothing is known.
conn = open()
client(conn, "six.example", "2001:db8::66", now)
mt.disconnect(conn)
conn = open()
client(conn, "localhost", "unspec")
helo(conn, "mail.example")
from(conn, "<>")
rcpt(conn, "<me@example.org>")
content(conn, "hello", "unspec")
expect(conn, SMFIR_ACCEPT, "eom")
mt.disconnect(conn, false)
mt.echo("passed")

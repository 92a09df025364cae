-- What an MTA says in macros.
dofile(LIB)

local conn = open()
mt.macro(conn, SMFIC_CONNECT, "j", "mta.example", "v", "Postfix 3.7.11", "{client_resolve}", "OK")
client(conn, "mail.example", "192.0.2.7")
mt.macro(conn, SMFIC_HELO, "{tls_version}", "TLSv1.3", "{cipher}", "TLS_AES_256_GCM_SHA384")
helo(conn, "mail.example")

-- a queue id that is known from the sender on, and a login
mt.macro(conn, SMFIC_MAIL, "i", "6AMqueue1", "{auth_authen}", "ann", "{auth_type}", "PLAIN")
from(conn, "<ann@example.org>")
rcpt(conn, "<me@example.org>")
content(conn, "hello", "login")
expect(conn, SMFIR_ACCEPT, "login")
check(mt.eom_check(conn, MT_HDRINSERT, "X-Sluice-Hits", " staff=-1"), "the rule sees the login")
check(mt.abort(conn) == nil, "abort")

-- the next message: another queue id, known from the recipient on, and nobody has logged in
mt.macro(conn, SMFIC_MAIL, "{mail_addr}", "a@sender.example")
from(conn, "<a@sender.example>")
mt.macro(conn, SMFIC_RCPT, "i", "6AMqueue2")
rcpt(conn, "<me@example.org>")
content(conn, "nothing", "nologin")
expect(conn, SMFIR_ACCEPT, "nologin")
check(not mt.eom_check(conn, MT_HDRINSERT, "X-Sluice-Hits"), "no rule holds")
mt.disconnect(conn)

-- a name that does not lead back to the address is none
conn = open()
mt.macro(conn, SMFIC_CONNECT, "{client_resolve}", "FORGED")
client(conn, "bank.example", "192.0.2.8")
helo(conn, "mail.example")
from(conn, "<a@sender.example>")
rcpt(conn, "<me@example.org>")
content(conn, "nothing", "forgedname")
expect(conn, SMFIR_ACCEPT, "forgedname")
mt.disconnect(conn)
mt.echo("passed")

-- One client, from connect to quit, as the OpenDKIM project's miltertest speaks for an MTA. SOCKET is given.

local function check(ok, what)
	if not ok then
		mt.echo("failed: " .. what)
		error(what)
	end
end

local function expect(conn, reply, what)
	check(mt.getreply(conn) == reply, what .. ": reply " .. string.char(mt.getreply(conn)))
end

local conn = mt.connect(SOCKET, 40, 0.05)
check(conn, "connect")
check(mt.negotiate(conn, nil, nil, nil) == nil, "negotiate")
check(mt.test_action(conn, SMFIF_ADDHDRS), "we may add header fields")
check(mt.test_action(conn, SMFIF_DELRCPT), "we may remove recipients")
check(not mt.test_action(conn, SMFIF_QUARANTINE), "we never hold mail in the MTA's queue")

-- connect, helo
check(mt.conninfo(conn, "mail.example", "192.0.2.7") == nil, "conninfo")
expect(conn, SMFIR_CONTINUE, "connect")
check(mt.helo(conn, "mail.example") == nil, "helo")
expect(conn, SMFIR_CONTINUE, "helo")

-- a message that is given up
check(mt.mailfrom(conn, "<a@sender.example>", "SIZE=100") == nil, "mail")
expect(conn, SMFIR_CONTINUE, "mail")
check(mt.rcptto(conn, "<me@example.org>") == nil, "rcpt")
expect(conn, SMFIR_CONTINUE, "rcpt")
check(mt.abort(conn) == nil, "abort")

-- a message with a recipient that is refused, and one that is removed
check(mt.mailfrom(conn, "<b@sender.example>") == nil, "mail")
expect(conn, SMFIR_CONTINUE, "mail")
check(mt.rcptto(conn, "<bad@example.org>") == nil, "rcpt")
expect(conn, SMFIR_REPLYCODE, "rcpt bad")
check(mt.rcptto(conn, "<Discard@Example.org>") == nil, "rcpt")
expect(conn, SMFIR_CONTINUE, "rcpt discard")
check(mt.rcptto(conn, "<me@example.org>") == nil, "rcpt")
expect(conn, SMFIR_CONTINUE, "rcpt me")
check(mt.data(conn) == nil, "data")
expect(conn, SMFIR_CONTINUE, "data")
check(mt.header(conn, "Subject", " hello") == nil, "header")
expect(conn, SMFIR_CONTINUE, "header")
check(mt.header(conn, "X-Sluice-Id", " forged") == nil, "header")
check(mt.eoh(conn) == nil, "eoh")
expect(conn, SMFIR_CONTINUE, "eoh")
check(mt.bodystring(conn, "text\r\n") == nil, "body")
expect(conn, SMFIR_CONTINUE, "body")
check(mt.eom(conn) == nil, "eom")
expect(conn, SMFIR_ACCEPT, "eom")
check(mt.eom_check(conn, MT_HDRINSERT, "X-Sluice-Id"), "the hand-over is added")
check(mt.eom_check(conn, MT_HDRDELETE, "X-Sluice-Id"), "the forged one is removed")
check(mt.eom_check(conn, MT_RCPTDELETE, "<Discard@Example.org>"), "the recipient is removed as it was spelt")
check(not mt.eom_check(conn, MT_RCPTDELETE, "<me@example.org>"), "the other recipient stays")
check(not mt.eom_check(conn, MT_QUARANTINE), "nothing is held by the MTA")

-- a message that is refused at its end
check(mt.mailfrom(conn, "<c@sender.example>") == nil, "mail")
check(mt.rcptto(conn, "<late@example.org>") == nil, "rcpt")
expect(conn, SMFIR_CONTINUE, "rcpt late")
check(mt.header(conn, "Subject", " hello") == nil, "header")
check(mt.eoh(conn) == nil, "eoh")
check(mt.bodystring(conn, "text\r\n") == nil, "body")
check(mt.eom(conn) == nil, "eom")
expect(conn, SMFIR_REPLYCODE, "eom")
-- An MTA reads %% as %; miltertest shows what was sent.
check(mt.eom_check(conn, MT_SMTPREPLY, "550", "5.7.1", "100%% not wanted"), "the text of the refusal")

mt.disconnect(conn)
mt.echo("all stages passed")

-- What all scripts share. SOCKET is given.

function check(ok, what)
	if not ok then
		mt.echo("failed: " .. what)
		error(what)
	end
end

-- open connects as an MTA that offers everything.
function open()
	local conn = mt.connect(SOCKET, 40, 0.05)
	check(conn, "connect to the socket")
	check(mt.negotiate(conn, nil, nil, nil) == nil, "negotiate")
	return conn
end

-- expect checks the answer to what was just sent.
function expect(conn, reply, what)
	local got = mt.getreply(conn)
	check(got == reply, what .. ": the reply is " .. string.char(got) .. ", not " .. string.char(reply))
end

function client(conn, host, ip, reply)
	check(mt.conninfo(conn, host, ip) == nil, "conninfo")
	expect(conn, reply or SMFIR_CONTINUE, "connect")
end

function helo(conn, name, reply)
	check(mt.helo(conn, name) == nil, "helo")
	expect(conn, reply or SMFIR_CONTINUE, "helo")
end

function from(conn, sender, reply)
	check(mt.mailfrom(conn, sender) == nil, "mail")
	expect(conn, reply or SMFIR_CONTINUE, "mail from " .. sender)
end

function rcpt(conn, recipient, reply)
	check(mt.rcptto(conn, recipient) == nil, "rcpt")
	expect(conn, reply or SMFIR_CONTINUE, "rcpt to " .. recipient)
end

function field(conn, name, value)
	check(mt.header(conn, name, " " .. value) == nil, "header")
	expect(conn, SMFIR_CONTINUE, name)
end

-- content sends a message up to its end, without the answer.
function content(conn, subject, id)
	check(mt.data(conn) == nil, "data")
	expect(conn, SMFIR_CONTINUE, "data")
	field(conn, "Subject", subject)
	field(conn, "Message-ID", "<" .. id .. "@sender.example>")
	check(mt.eoh(conn) == nil, "eoh")
	expect(conn, SMFIR_CONTINUE, "eoh")
	check(mt.bodystring(conn, "the text of " .. id .. "\r\n") == nil, "body")
	check(mt.eom(conn) == nil, "eom")
end

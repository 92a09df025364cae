#!/usr/bin/env python3
"""A service for the http step of Sluice: does the sender buy from us?  service.py HOST:PORT [TOKENFILE]"""

import hmac
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CUSTOMERS = {"ann@example.com": 12, "bob@example.net": 1}


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    timeout = 60

    def do_POST(self):
        # The whole body is read, or the next question would begin in it: the question, and `follows` octets of the mail.
        line, _, mail = self.rfile.read(int(self.headers["Content-Length"])).partition(b"\n")
        token = self.server.token
        if token and not hmac.compare_digest(self.headers.get("Authorization", ""), "Bearer " + token):
            return self.reply(401, {"error": "no token"})
        question = json.loads(line)
        if question["from"] == "":
            return self.reply(200, {"fact": {"customer": False}, "unknown": {"orders": "the null sender buys nothing"}})
        orders = CUSTOMERS.get(question["from"], 0)
        self.reply(200, {"version": 1, "fact": {"customer": orders > 0, "orders": orders}})

    def reply(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


host, port = sys.argv[1].rsplit(":", 1)
server = ThreadingHTTPServer((host, int(port)), Shop)
server.token = ""
if len(sys.argv) > 2:
    with open(sys.argv[2]) as f:
        server.token = f.readline().strip()
server.serve_forever()

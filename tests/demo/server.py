"""The demo's server: a small web server whose answers come from the managed file.

It reads its configuration on every request, so a new version shows without a restart. Arguments: PORT CONFIG-FILE.
"""
import http.server
import os
import sys

PORT, CONFIG = int(sys.argv[1]), sys.argv[2]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with open(CONFIG, encoding="utf-8") as file:
                body, code = file.read(), 200
        except OSError as error:
            body, code = f"{error}\n", 503
        answer = f"{os.environ['OSTLER_NAME']} on {os.environ['OSTLER_NODE']}\n{body}".encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format, *args):
        print(self.address_string(), format % args, flush=True)


print(f"serving {CONFIG} on port {PORT}", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()

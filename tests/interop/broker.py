"""The broker under test: the real binary, with a listener for each transport on a port that is free."""

import base64
import hashlib
import os
import re
import subprocess
import tempfile

CONFIG = """
[[listeners]]
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
tls = { certificate = "certs/server.pem", key = "certs/server.key" }
[[listeners]]
address = "127.0.0.1:0"
websocket = {}
[[listeners]]
address = "127.0.0.1:0"
websocket = {}
tls = { certificate = "certs/server.pem", key = "certs/server.key" }
[auth]
anonymous = true
password_file = "passwords"
[admin]
enabled = false
"""

# How it names its listeners when it starts: name, perhaps a scheme, port, perhaps a path.
LISTENER = re.compile(r"  (MQTT|MQTT over TLS|WebSocket) +(?:(wss?)://)?127\.0\.0\.1:(\d+)(/\S*)?$")
TRANSPORTS = {"MQTT": "tcp", "MQTT over TLS": "tls"}
LISTENERS = CONFIG.count("[[listeners]]")

# Kills the broker when its own standard input ends, so that none outlives the runner.
WATCH = '"$0" "$@" & broker=$!; read -r _; kill $broker; wait $broker'


class Broker:
    """`places` holds, for each transport, what a client has to know to connect."""

    def __init__(self, binary):
        self._folder = tempfile.TemporaryDirectory(prefix="causeway-interop-")
        folder = self._folder.name
        with open(os.path.join(folder, "causeway.toml"), "w") as file:
            file.write(CONFIG)
        with open(os.path.join(folder, "passwords"), "w") as file:
            os.chmod(file.name, 0o600)
            file.write(password_line("skipper", b"rowboat"))
        # Of the broker, and of the clients.
        self.log = open(os.path.join(folder, "log"), "a+")
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", WATCH, binary, "serve", "--config", "causeway.toml"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        self.places = {}
        while len(self.places) < LISTENERS:
            line = self._process.stdout.readline().decode()
            if not line:
                raise SystemExit(f"the broker has not started:\n{self.said()}")
            if said := LISTENER.match(line):
                name, scheme, port, path = said.groups()
                transport = scheme or TRANSPORTS[name]
                self.places[transport] = self._place(transport, int(port), path)

    def _place(self, transport, port, path):
        is_tls = transport in ("tls", "wss")
        return {
            "transport": transport,
            # The certificate is for this name.
            "host": "localhost" if is_tls else "127.0.0.1",
            "port": port,
            "path": path or "/",
            "ca": os.path.join(self._folder.name, "certs", "ca.pem") if is_tls else None,
        }

    def stop(self):
        """Tells it to stop; the exit code."""
        self._process.stdin.close()
        code = self._process.wait(timeout=30)
        self._process.stdout.close()
        return code

    def said(self):
        """What the broker and the clients have logged."""
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.log.close()
        self._folder.cleanup()


def password_line(user, password):
    """A user as mosquitto_passwd writes it. The broker's own hashes take seconds in a debug build."""
    salt, iterations = os.urandom(12), 101
    hashed = hashlib.pbkdf2_hmac("sha512", password, salt, iterations)
    return f"{user}:$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(hashed).decode()}\n"

"""Exposes metrics with prometheus_client until stdin ends: `expose.py [CERTIFICATE KEY [CLIENT-CA]]`; says its port."""
import sys

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

registry = CollectorRegistry()
Gauge("temperature", "How warm", ["room"], registry=registry).labels("attic").set(21.5)
Counter("visits", "How many came", registry=registry).inc(7)
files = dict(zip(("certfile", "keyfile", "client_cafile"), sys.argv[1:]))
server, _ = start_http_server(0, addr="127.0.0.1", registry=registry, client_auth_required=len(files) > 2, **files)
print(server.server_port, flush=True)
sys.stdin.read()

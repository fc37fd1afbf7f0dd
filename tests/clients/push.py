"""Pushes with prometheus_client as a batch job does: `push.py ADDRESS put|add|delete [VALUE]`."""
import sys

from prometheus_client import (
    CollectorRegistry, Counter, Gauge, Histogram, delete_from_gateway, push_to_gateway, pushadd_to_gateway)

address, what, *value = sys.argv[1:]
group = {"namespace": "default", "pod": "batch-0", "path": "/var/tmp"}
registry = CollectorRegistry()
if what == "delete":
    delete_from_gateway(address, job="batch", grouping_key=group)
elif what == "put":
    Gauge("rows", "Rows done", registry=registry).set(float(value[0]))
    Counter("errors", "Errors seen", ["kind"], registry=registry).labels("io \"x\"\n").inc(3)
    Histogram("took_seconds", "How long", registry=registry, buckets=[0.1, 1]).observe(0.5)
    push_to_gateway(address, job="batch", grouping_key=group, registry=registry)
else:
    Gauge("rows", "Rows done", registry=registry).set(float(value[0]))
    pushadd_to_gateway(address, job="batch", grouping_key=group, registry=registry)

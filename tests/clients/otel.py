"""Sends with OpenTelemetry's SDK: `otel.py URL cumulative|delta`."""
import sys

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

url, temporality = sys.argv[1:]
delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
exporter = OTLPMetricExporter(
    endpoint=url,
    compression=Compression.Gzip,
    preferred_temporality=delta if temporality == "delta" else None)
resource = Resource.create({
    "service.name": "shop", "k8s.namespace.name": "default", "k8s.pod.name": f"shop-{temporality}"})
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
provider = MeterProvider(metric_readers=[reader], resource=resource)
meter = provider.get_meter("test")
orders = meter.create_counter("orders.placed", unit="{order}", description="Orders placed")
took = meter.create_histogram("http.server.duration", unit="s")
meter.create_up_down_counter("queue.length").add(4)
for _ in range(2):
    orders.add(5, {"shop.kind": "web"})
    took.record(0.2)
    if not provider.force_flush():
        sys.exit("not exported")
provider.shutdown()

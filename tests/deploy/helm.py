"""Helm as a library: `helm.py render CHART VALUES_JSON` prints the manifests, `helm.py lint CHART` the findings as JSON."""

import json
import sys

import helm_python as helm

command, path = sys.argv[1:3]
if command == "render":
    with helm.Chart.load(path) as chart:
        values = json.loads(sys.argv[3])
        chart.validate_schema(values)
        manifests = chart.render(values, name="lookback", namespace="lookback")
    for name, text in sorted(manifests.items()):
        if name.endswith(".yaml") and text.strip():
            print("---")
            print(text)
else:
    print(json.dumps(helm.lint(path)))

"""Reads a page of metrics from standard input as strictly as Prometheus' own parser does; tells its metrics as JSON."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = {family.name: family.type for family in text_string_to_metric_families(sys.stdin.read())}
print(json.dumps(families))

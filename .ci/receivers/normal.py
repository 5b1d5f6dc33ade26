"""One form for spans from protobuf and spans from OTLP-JSON, so that they can be compared."""

import json


def spans_of_requests(requests):
    """Spans by id, from `ExportTraceServiceRequest` messages."""
    spans = {}
    for request in requests:
        for of_resource in request.resource_spans:
            resource = _attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    spans.setdefault(span.span_id.hex(), []).append(_span(span, of_scope.scope, resource))
    return spans


def _span(span, scope, resource):
    return {
        "resource": resource,
        "scope": (scope.name, scope.version, _attributes(scope.attributes)),
        "trace id": span.trace_id.hex(),
        "parent": span.parent_span_id.hex(),
        "trace state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "times": (span.start_time_unix_nano, span.end_time_unix_nano),
        "attributes": _attributes(span.attributes),
        "events": [(event.time_unix_nano, event.name, _attributes(event.attributes)) for event in span.events],
        "links": [
            (link.trace_id.hex(), link.span_id.hex(), link.flags, _attributes(link.attributes)) for link in span.links
        ],
        "dropped": (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
        "status": (span.status.code, span.status.message),
    }


def _attributes(pairs):
    return sorted((pair.key, _value(pair.value)) for pair in pairs)


def _value(value):
    """The value with its type: 1 and 1.0 are different attributes."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return (kind, [_value(item) for item in value.array_value.values])
    return (kind, getattr(value, kind))


def spans_of_file(path):
    """Spans by id, from OTLP-JSON lines, read with nothing but a JSON parser."""
    spans = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            for of_resource in json.loads(line)["resourceSpans"]:
                resource = _json_attributes(of_resource["resource"])
                for of_scope in of_resource["scopeSpans"]:
                    for span in of_scope["spans"]:
                        spans.setdefault(span["spanId"], []).append(_json_span(span, of_scope["scope"], resource))
    return spans


def _json_span(span, scope, resource):
    status = span["status"]
    return {
        "resource": resource,
        "scope": (scope["name"], scope.get("version", ""), _json_attributes(scope)),
        "trace id": span["traceId"],
        "parent": span.get("parentSpanId", ""),
        "trace state": span.get("traceState", ""),
        "flags": span["flags"],
        "name": span["name"],
        "kind": span["kind"],
        "times": (_int64(span["startTimeUnixNano"]), _int64(span["endTimeUnixNano"])),
        "attributes": _json_attributes(span),
        "events": [
            (_int64(event["timeUnixNano"]), event["name"], _json_attributes(event)) for event in span.get("events", [])
        ],
        "links": [
            (link["traceId"], link["spanId"], link["flags"], _json_attributes(link)) for link in span.get("links", [])
        ],
        "dropped": tuple(span.get(f"dropped{what}Count", 0) for what in ("Attributes", "Events", "Links")),
        "status": (status.get("code", 0), status.get("message", "")),
    }


def _json_attributes(owner):
    return sorted((pair["key"], _json_value(pair["value"])) for pair in owner.get("attributes", []))


def _json_value(value):
    ((kind, content),) = value.items()
    match kind:
        case "stringValue":
            return ("string_value", content)
        case "boolValue":
            return ("bool_value", content)
        case "intValue":
            return ("int_value", _int64(content))
        case "doubleValue":
            return ("double_value", float(content))
        case "arrayValue":
            return ("array_value", [_json_value(item) for item in content["values"]])
    raise ValueError(f"no such kind of value: {kind}")


def _int64(text):
    if not isinstance(text, str):
        raise ValueError(f"a 64-bit integer is a string in OTLP-JSON, not {text!r}")
    return int(text)


def differences(written, received):
    """What tells the two apart, one line each."""
    found = [f"span {span_id} did not arrive" for span_id in written.keys() - received.keys()]
    found += [f"span {span_id} is not in the file" for span_id in received.keys() - written.keys()]
    for span_id in written.keys() & received.keys():
        if len(written[span_id]) != 1 or len(received[span_id]) != 1:
            found.append(f"span {span_id}: {len(written[span_id])} written, {len(received[span_id])} received")
            continue
        (ours,), (theirs,) = written[span_id], received[span_id]
        for field, value in ours.items():
            if value != theirs[field]:
                found.append(f"{ours['name']} {span_id}, {field}: {value!r} written, {theirs[field]!r} received")
    return found

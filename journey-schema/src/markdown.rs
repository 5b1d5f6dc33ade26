//! Prints the tables as `docs/schema.md`.

use core::fmt::Write;

use crate::{Attr, AttributeType, Event, Scope, SpanKind, SpanName, carrier};

/// The whole schema as Markdown. `docs/schema.md` is this text; a test fails when it is not.
pub fn markdown() -> String {
    let mut out = String::from(
        "<!-- Printed by `cargo run -p journey-schema --example schema-doc`; edit journey-schema/src/table.rs. -->\n\
         # The journey schema\n\n## Scopes and spans\n\n\
         | instrumentation scope | span | kind | attributes set by the engine | derived by the layer at the end |\n|---|---|---|---|---|\n",
    );
    for span in SpanName::ALL {
        row(
            &mut out,
            &[
                code(span.scope().name()),
                code(span.name()),
                match span.kind() {
                    SpanKind::Server => "SERVER".into(),
                    SpanKind::Internal => "INTERNAL".into(),
                },
                keys(span.attributes()),
                keys(span.derived()),
            ],
        );
    }
    out.push_str(
        "\n## Events\n\n| scope | identifier | wire name | span | when | terminal | may be followed by |\n|---|---|---|---|---|---|---|\n",
    );
    for scope in Scope::ALL {
        for event in Event::ALL.iter().filter(|event| event.scope() == *scope) {
            row(
                &mut out,
                &[
                    code(scope.name()),
                    code(event.ident()),
                    code(event.wire_name()),
                    code(event.span().name()),
                    event.doc().into(),
                    if event.is_terminal() { "yes".into() } else { String::new() },
                    event.successors().iter().map(|next| code(next.ident())).collect::<Vec<_>>().join(", "),
                ],
            );
        }
    }
    out.push_str("\nABORTED and FINISHED may end their span at any point. Nothing follows a terminal event.\n");
    out.push_str(
        "\n## Attributes of events\n\n| event | filled in by the layer | required | optional |\n|---|---|---|---|\n",
    );
    for event in Event::ALL {
        row(&mut out, &[code(event.ident()), keys(event.reserved()), keys(event.required()), keys(event.optional())]);
    }
    out.push_str("\n## Attribute keys\n\n| key | argument in the macros | type | meaning |\n|---|---|---|---|\n");
    for attr in Attr::ALL {
        let info = attr.info();
        let mut meaning = info.doc.to_owned();
        if let Some(latest) = attr.latest_key() {
            let _ = write!(meaning, " (`{latest}` under `gen_ai_latest_experimental`)");
        }
        row(&mut out, &[code(info.key), code(info.argument), type_name(info.ty), meaning]);
    }
    let _ = write!(
        out,
        "\n## Carrier\n\nThe string map that crosses the API / core boundary: `{}`, `{}` with the member `{}={}`, and\n`{}: {}` when the API sampled the request.\n",
        carrier::TRACEPARENT,
        carrier::TRACESTATE,
        carrier::TRACESTATE_KEY,
        carrier::TRACESTATE_VALUE,
        carrier::JOURNEY_SAMPLED,
        carrier::SAMPLED,
    );
    out
}

fn row(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn keys(attrs: &[Attr]) -> String {
    attrs.iter().map(|attr| code(attr.key())).collect::<Vec<_>>().join(", ")
}

fn type_name(ty: AttributeType) -> String {
    match ty {
        AttributeType::Int => "i64".into(),
        AttributeType::Float => "f64".into(),
        AttributeType::Str => "str".into(),
        AttributeType::OneOf(values) => values.iter().map(|value| code(value)).collect::<Vec<_>>().join(", "),
    }
}

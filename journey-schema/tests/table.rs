//! The tables agree with themselves, and `docs/schema.md` with the tables.

use std::collections::HashSet;

use journey_schema::{Attr, Event, Scope, SpanName};

#[test]
fn the_generated_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema.md");
    let on_disk = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        on_disk == journey_schema::markdown(),
        "docs/schema.md is stale: cargo run -p journey-schema --example schema-doc > docs/schema.md"
    );
}

#[test]
fn every_name_is_found_again_and_stands_once() {
    for scope in Scope::ALL {
        assert_eq!(Scope::from_name(scope.name()), Some(*scope));
        assert_eq!(scope.default_span().scope(), *scope);
    }
    for span in SpanName::ALL {
        assert_eq!(SpanName::from_name(span.name()), Some(*span));
    }
    for event in Event::ALL {
        assert_eq!(Event::from_ident(event.ident()), Some(*event));
        assert_eq!(Event::from_wire_name(event.wire_name()), Some(*event));
        assert!(event.wire_name().ends_with(event.ident()));
    }
    assert_eq!(Event::from_ident("FIRST_RESPONSE"), Some(Event::FirstResponseFromCore));
    let keys: HashSet<_> = Attr::ALL.iter().map(|attr| attr.key()).collect();
    assert_eq!(keys.len(), Attr::ALL.len());
    for attr in Attr::ALL {
        assert_eq!(Attr::from_key(attr.key()), Some(*attr));
    }
}

#[test]
fn the_arguments_of_one_event_or_span_are_distinct() {
    let distinct = |attrs: Vec<Attr>| {
        let names: HashSet<_> = attrs.iter().map(|attr| attr.info().argument).collect();
        assert_eq!(names.len(), attrs.len(), "{attrs:?}");
    };
    for event in Event::ALL {
        distinct(event.attributes().collect());
    }
    for span in SpanName::ALL {
        distinct(span.attributes().iter().chain(span.derived()).copied().collect());
    }
}

#[test]
fn successors_stay_on_the_same_span() {
    for event in Event::ALL {
        assert!(event.successors().iter().all(|next| next.span() == event.span()));
        assert_eq!(event.is_terminal(), event.successors().is_empty());
    }
}

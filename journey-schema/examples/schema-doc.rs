//! Prints `docs/schema.md`: `cargo run -p journey-schema --example schema-doc > docs/schema.md`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(journey_schema::markdown().as_bytes())
}

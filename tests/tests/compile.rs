//! What the macros accept, and what the compiler says where they refuse.
//!
//! One run of all cases, because each run builds the library anew. After a deliberate change of a message,
//! `TRYBUILD=overwrite cargo test -p journey-tests --test compile` writes the `.stderr` files; read the difference as a
//! user would.

#[test]
fn the_macros_accept_every_documented_form_and_explain_what_they_refuse() {
    let cases = trybuild::TestCases::new();
    cases.pass("compile-pass/*.rs");
    cases.compile_fail("compile-fail/*.rs");
}

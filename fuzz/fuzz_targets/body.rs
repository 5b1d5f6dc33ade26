//! The engine with its model is not linked: the files that read a body are compiled here once more.
#![no_main]

#[path = "../../example-engine/src/api"]
mod api {
    mod error;
    mod fuzz;
    mod params;
    mod types;

    pub(super) fn body(body: &[u8]) {
        fuzz::check(body);
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::body(data));

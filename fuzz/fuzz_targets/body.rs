//! The engine with its model is not linked: the files that read a body are compiled here once more.
#![no_main]

mod api {
    #[path = "../../../example-engine/src/api/error.rs"]
    mod error;
    #[path = "../../../example-engine/src/api/fuzz.rs"]
    mod fuzz;
    #[path = "../../../example-engine/src/api/params.rs"]
    mod params;
    #[path = "../../../example-engine/src/api/types.rs"]
    mod types;

    pub(super) fn body(body: &[u8]) {
        fuzz::check(body);
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::body(data));

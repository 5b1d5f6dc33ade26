//! The generated gRPC code is what the proto file says.

use std::path::Path;
use std::{env, fs};

const PROTO: &str = "engine.proto";
const GENERATED: &str = "src/grpc/generated/example_engine.v1.rs";

#[test]
fn the_generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let descriptors = protox::compile([PROTO], [root.join("proto")]).expect("the proto file compiles");
    tonic_prost_build::configure().out_dir(out.path()).compile_fds(descriptors).expect("code is generated");
    let fresh = fs::read_to_string(out.path().join("example_engine.v1.rs")).expect("the generated file");
    let committed = root.join(GENERATED);
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&committed, &fresh).expect("the generated file is written");
    }
    let known = fs::read_to_string(&committed).unwrap_or_default();
    assert!(known == fresh, "{GENERATED} is stale: run this test with UPDATE_GENERATED=1");
}

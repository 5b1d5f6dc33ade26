//! The harness itself: every stack is started, delivers the same journey, and is in the file.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_stack_delivers_the_same_journey_and_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("nested/journey-bench.json");
    let output = Command::new(env!("CARGO_BIN_EXE_journey-bench"))
        .args(["--quick", "--rounds", "2", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let file: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(file["profile"].is_string());
    for stack in ["journey", "journey_otlp", "journey_sampled_out", "journey_composed", "journey_sdk_sink"] {
        for figure in ["producer_ns", "process_ns", "allocs"] {
            assert!(file["stacks"][stack][figure].is_number(), "{stack} has no {figure}: {file}");
        }
    }
    for stack in ["tracing_opentelemetry", "tracing_opentelemetry_otlp", "sdk", "fastrace", "registry", "floor"] {
        assert!(file["stacks"][stack]["process_ns"].as_f64().unwrap() > 0.0, "{stack}: {file}");
    }
    // Seen name by name at the receiver, and so with the peers' two additions to each event.
    assert_eq!(file["stacks"]["tracing_opentelemetry_otlp"]["attributes"], 99.0);
    assert!(file["stacks"]["journey_otlp"]["attributes"].as_f64().unwrap() >= 79.0);
    assert!(file["ratios"]["process_otlp"].as_f64().unwrap() > 0.0);
}

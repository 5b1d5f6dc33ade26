//! Real processes: `serve`, `core`, `demo` and `bench`, their signals, and the traces they leave.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::processes::{FileSpan, Process, Workspace, engine, read_spans, run};
use crate::support::{free_port, until};
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";

fn post(url: &str, body: &Value) -> reqwest::RequestBuilder {
    reqwest::Client::new().post(format!("{url}{COMPLETIONS}")).json(body)
}

fn named<'a>(spans: &'a [FileSpan], name: &str) -> Vec<&'a FileSpan> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn serve_writes_its_journeys_and_ends_with_0_at_sigterm() {
    let workspace = Workspace::new();
    let server = workspace.start("serve", "0", &["--drain-timeout", "0.3"]);
    let body = json!({"prompt": "a", "max_tokens": 5, "ignore_eos": true});
    let response = post(&server.url, &body).send().await.expect("an answer");
    assert_eq!(response.status().as_u16(), 200);
    let metrics = reqwest::get(format!("{}/metrics", server.url)).await.expect("an answer").text().await.expect("text");
    let ledger = |series: &str| -> u64 {
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(series)?.rsplit_once(' '));
        lines.map(|(_, count)| count.parse::<u64>().expect("a count")).sum()
    };
    assert_eq!(ledger("journey_spans_total{state=\"started\"}"), 2, "{metrics}");
    assert!(metrics.contains("journey_spans_total{state=\"dropped\",reason=\"queue_full\"} 0"), "{metrics}");
    for name in ["spans", "events"] {
        let settled = ["exported", "rejected", "dropped"];
        let settled: u64 =
            settled.iter().map(|state| ledger(&format!("journey_{name}_total{{state=\"{state}\""))).sum();
        let started = ledger(&format!("journey_{name}_total{{state=\"started\""));
        assert_eq!(started, settled + ledger(&format!("journey_live_{name}")), "{metrics}");
    }
    assert!(metrics.contains("journey_notes_total{reason=\"truncated\"} 0"), "{metrics}");
    let endless = json!({"prompt": "b", "max_tokens": 250, "ignore_eos": true, "n": 8, "stream": true});
    let mut stream = post(&server.url, &endless).send().await.expect("an answer");
    stream.chunk().await.expect("a chunk");
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));
    let spans = read_spans(&workspace.journeys);
    let requests = named(&spans, "llm_request");
    assert_eq!((requests.len(), named(&spans, "llm_core").len()), (2, 9));
    for span in &spans {
        let last = span.events.last().map(String::as_str);
        assert!(matches!(last, Some("api.DEPARTED" | "api.ABORTED" | "journey.FINISHED")), "{span:?}");
    }
}

#[tokio::test]
async fn under_a_rate_no_header_forces_a_journey() {
    let workspace = Workspace::new();
    let server = workspace.start("serve", "0", &["--journey-tracing-sample-rate", "0"]);
    let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = post(&server.url, &json!({"prompt": "a", "max_tokens": 2})).header("traceparent", sampled);
    assert_eq!(request.header("x-vllm-journey-sampled", "1").send().await.expect("an answer").status().as_u16(), 200);
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(read_spans(&workspace.journeys).len(), 0);
}

#[test]
fn a_connection_that_says_nothing_does_not_keep_a_core_from_ending() {
    let workspace = Workspace::new();
    let core = workspace.start("core", "0", &["--drain-timeout", "0.5"]);
    let silent = std::net::TcpStream::connect(core.url.trim_start_matches("http://")).expect("a connection");
    // Until it is accepted it would be closed at once.
    std::thread::sleep(Duration::from_millis(200));
    let told = Instant::now();
    core.terminate();
    assert_eq!(core.exit_code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(12), "before its silence alone ends it");
    drop(silent);
}

#[tokio::test]
async fn traces_join_across_processes_and_survive_the_death_of_a_core() {
    let workspace = Workspace::new();
    let port = free_port().to_string();
    let cores = [workspace.start("core", &port, &[]), workspace.start("core", "0", &[])];
    let urls: Vec<_> = cores.iter().map(|core| core.url.clone()).collect();
    let log = workspace.dir.path().join("log");
    let mut command = workspace.command("serve", "0", &["--core", &urls[0], "--core", &urls[1]]);
    let server = Process::spawn(command.stderr(File::create(&log).expect("a file")));
    let ups = || std::fs::read_to_string(&log).expect("a log").matches(" is up").count();
    let up = async || {
        for _ in 0..500 {
            if post(&server.url, &json!({"prompt": "a", "max_tokens": 1}))
                .send()
                .await
                .is_ok_and(|one| one.status() == 200)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no core came up");
    };
    until("both cores are up", || ups() == 2).await;
    // Least loaded: three sequences cannot all go to one core.
    let body = json!({"prompt": "a", "max_tokens": 200, "ignore_eos": true, "n": 4, "stream": true});
    let mut stream = post(&server.url, &body).send().await.expect("an answer");
    stream.chunk().await.expect("a chunk");
    let [dying, living] = cores;
    dying.kill();
    let mut rest = String::new();
    while let Some(chunk) = stream.chunk().await.expect("a whole stream") {
        rest += &String::from_utf8_lossy(&chunk);
    }
    assert!(rest.contains("is gone"), "{rest}");
    up().await;
    let returned = workspace.start("core", &port, &[]);
    up().await;
    for process in [server, living, returned] {
        process.terminate();
        assert_eq!(process.exit_code(), Some(0));
    }
    let spans = read_spans(&workspace.journeys);
    let requests = named(&spans, "llm_request");
    for core in named(&spans, "llm_core") {
        let parent = requests.iter().find(|request| request.span_id == core.parent_span_id).expect("a parent");
        assert_eq!((&parent.trace_id, core.scope.as_str()), (&core.trace_id, "vllm.scheduler"));
    }
    let failed: Vec<_> = requests.iter().filter(|one| one.json.to_string().contains("generation_error")).collect();
    assert_eq!(failed.len(), 1);
    // The killed core's sequences were never exported; the living one's were aborted.
    let left = named(&spans, "llm_core").into_iter().filter(|core| core.trace_id == failed[0].trace_id).count();
    assert_eq!(left, 2);
}

#[test]
fn the_demo_ends_with_0_and_the_replayed_duplicates_are_refused() {
    let workspace = Workspace::new();
    let journeys = workspace.journeys.display().to_string();
    let args = ["demo", "--model", &workspace.model, "--journeys", &journeys, "--requests", "24"];
    let output = run(&args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("slowest journeys") && text.contains("ledger"), "{text}");
    let plain = read_spans(&workspace.journeys);
    assert!(plain.iter().any(|span| span.events.iter().any(|event| event == "journey.PREEMPTED")), "no preemption");

    std::fs::remove_file(&workspace.journeys).expect("a file");
    let output = run(&[&args[..], &["--replay-do-tracing", "--quiet"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("duplicate spans refused") && text.contains("handed_off"), "{text}");
    let replayed = read_spans(&workspace.journeys);
    let requests = named(&replayed, "llm_request");
    // The demo's clients send no parent: whatever has one is a duplicate.
    assert!(requests.len() > 20 && requests.iter().all(|request| request.parent_span_id.is_empty()), "{requests:?}");
    assert!(replayed.iter().all(|span| matches!(span.scope.as_str(), "vllm.api" | "vllm.scheduler")));
}

#[test]
fn bench_measures_a_running_server() {
    let workspace = Workspace::new();
    let server = workspace.start("serve", "0", &["--api-key", "k"]);
    let args = ["bench", "--url", &server.url, "--requests", "6", "--concurrency", "3", "--max-tokens", "9", "--json"];
    let output = engine(&args).env("EXAMPLE_ENGINE_API_KEY", "k").output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["completed"], &report["failed"]), (&json!(6), &json!(0)));
    let tokens =
        report["tokens_per_second"].as_f64().expect("a number") * report["seconds"].as_f64().expect("a number");
    assert!((tokens - 54.0).abs() < 0.5, "{tokens}");
    // With the wrong key it says why.
    let output = engine(&args).env_remove("EXAMPLE_ENGINE_API_KEY").output().expect("a process");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("401"));
}

#[test]
fn what_cannot_start_says_why() {
    let workspace = Workspace::new();
    let empty = workspace.dir.path().display().to_string();
    for (args, says) in [
        (vec!["--model", "/no/such/model"], "/no/such/model"),
        (vec!["--model", &empty], "config.json"),
        (vec!["--model", &workspace.model, "--block-size", "0"], "block_size"),
        (vec!["--model", &workspace.model, "--max-model-len", "257"], "256"),
        (vec!["--model", &workspace.model, "--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (vec!["--model", &workspace.model, "--core", "not a url"], "not a url"),
        (vec!["--model", &workspace.model, "--step-tracing-sample-rate", "2"], "rate"),
        (vec!["--model", &workspace.model, "--journey-tracing-sample-rate", "2"], "rate"),
    ] {
        let journeys = workspace.journeys.display().to_string();
        let output = run(&[&args[..], &["--port", "0", "--journeys", &journeys]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
    let args = ["serve", "--model", &workspace.model, "--port", "0"];
    let output = engine(&args).env("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318").output().expect("a process");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("http://"), "{error}");
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_if_asked_for_and_no_matter_otherwise() {
    let workspace = Workspace::new();
    let journeys = workspace.journeys.display().to_string();
    let args = ["serve", "--model", &workspace.model, "--port", "0", "--journeys", &journeys];
    // What Vulkan's loader reads in place of the system's drivers.
    let without_drivers = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, "/no/such/driver.json"));
    let output = engine(&args).args(["--device", "gpu"]).envs(without_drivers).output().expect("a process");
    let error = String::from_utf8_lossy(&output.stderr);
    let says = if cfg!(feature = "gpu") { "no GPU was found" } else { "build with `--features gpu`" };
    assert!(output.status.code() == Some(1) && error.contains(says) && error.contains("--device cpu"), "{error}");

    let mut auto = engine(&args);
    auto.args(["--device", "auto"]).envs(without_drivers).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = auto.spawn().expect("a process");
    let log = BufReader::new(server.stderr.take().expect("a pipe"));
    let device = log.lines().map(|line| line.expect("a line")).find(|line| line.contains("model "));
    server.kill().and_then(|()| server.wait()).expect("an ended process");
    assert!(device.as_deref().is_some_and(|line| line.ends_with("on cpu (flex)")), "{device:?}");
}

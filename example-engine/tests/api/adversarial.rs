//! Clients that mean no good, or do not know better, on raw connections: each gets its status or is closed, and the server goes
//! on serving.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Setup, TestServer, abort_reason, until};

const COMPLETIONS: &str = "/v1/completions";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that loses its patience soon.
async fn impatient() -> TestServer {
    let mut setup = Setup::default();
    setup.limits.header_timeout = Duration::from_millis(300);
    setup.limits.body_timeout = Duration::from_millis(300);
    setup.limits.write_timeout = Duration::from_millis(300);
    let mut server = setup.start().await;
    // What is idle it closes, and that might be the connection which the client takes again at this moment.
    server.http = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
    server
}

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).await.expect("a connection")
}

/// Everything that the server says until it closes.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    // A reset is a close as well: the server had not read all there was.
    drop(end);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The statuses of the answers to `bytes`, up to the close.
async fn statuses(server: &TestServer, bytes: &[u8]) -> Vec<u16> {
    let mut stream = connect(server).await;
    // The server may have closed before it has all.
    let _ = stream.write_all(bytes).await;
    let text = read_to_end(&mut stream).await;
    let lines = text.match_indices("HTTP/1.").map(|(at, _)| &text[at..]);
    lines.filter_map(|line| line.get(9..12)?.parse().ok()).collect()
}

/// The server answers, holds nothing, and has lost no journey.
async fn assert_well(server: &TestServer) {
    let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": "abc", "max_tokens": 2})).await;
    assert_eq!(status, 200, "{answer}");
    server.assert_core_is_idle().await;
    server.journeys().await;
    let stats = server.capture.stats();
    assert_eq!((stats.spans.rejected(), stats.spans.dropped()), (0, 0), "{stats}");
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n{body}")
        .into_bytes()
}

/// A whole request that is answered with 200 when it comes to be read.
const NEXT: &str = "GET /version HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn heads_have_bounds() {
    let server = impatient().await;
    let get = |more: &str| format!("GET /version HTTP/1.1\r\nhost: x\r\n{more}\r\n").into_bytes();
    let lines = |count: usize| (0..count).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    for (what, bytes, status) in [
        ("a huge value", get(&format!("x: {}\r\n", "y".repeat(1 << 20))), 431),
        ("a huge name", get(&format!("{}: y\r\n", "x".repeat(1 << 20))), 431),
        ("a thousand headers", get(&lines(1000)), 431),
        ("ninety headers", get(&lines(90)), 200),
        ("a huge path", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)).into_bytes(), 431),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(30_000)).into_bytes(), 404),
    ] {
        assert_eq!(statuses(&server, &bytes).await, [status], "{what}");
    }
    assert_well(&server).await;
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_closed() {
    let server = impatient().await;
    for (what, bytes) in [
        ("noise", &b"\x00\x01\x02\xff\xfe\r\n\r\n"[..]),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("an unknown version", b"GET / HTTP/9.9\r\n\r\n"),
        ("a control character in a name", b"GET / HTTP/1.1\r\nx\x00y: z\r\n\r\n"),
        ("a control character in a value", b"GET / HTTP/1.1\r\nx: y\x00z\r\n\r\n"),
        ("a header without a colon", b"GET / HTTP/1.1\r\nxyz\r\n\r\n"),
        ("a space before the colon", b"GET / HTTP/1.1\r\nhost : x\r\n\r\n"),
        ("a folded header", b"GET / HTTP/1.1\r\nx: y\r\n z\r\n\r\n"),
        ("no path", b"GET  HTTP/1.1\r\n\r\n"),
    ] {
        assert_eq!(statuses(&server, bytes).await, [400], "{what}");
    }
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(statuses(&server, http2).await, [0_u16; 0], "an answer in HTTP/1 would be noise to a client of HTTP/2");
    let mut after = NEXT.as_bytes().to_vec();
    after.extend_from_slice(b"\x00\x01garbage\r\n\r\n");
    assert_eq!(statuses(&server, &after).await, [200, 400], "garbage behind a request");
    assert_well(&server).await;
}

/// Shapes that one server on the way takes for one request and another for two. What stands behind the body must never be
/// taken for a request where the length is in doubt.
#[tokio::test]
async fn a_request_whose_length_is_in_doubt_ends_its_connection() {
    let server = impatient().await;
    for (headers, body) in [
        ("content-length: 4\r\ncontent-length: 5\r\n", "abcde"),
        ("content-length: 4, 5\r\n", "abcde"),
        ("content-length: +4\r\n", "abcd"),
        ("content-length: -1\r\n", ""),
        ("content-length: 0x4\r\n", "abcd"),
        ("content-length: 99999999999999999999\r\n", ""),
        ("content-length:\r\n", ""),
        ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
        ("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("content-length: 5\r\ntransfer-encoding: identity\r\n", "abcde"),
        ("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\nabc"),
        ("transfer-encoding: chunked\r\n", "-1\r\nabc\r\n"),
        ("transfer-encoding: chunked\r\n", "3\r\nabcdef\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\n", "z\r\nabc\r\n0\r\n\r\n"),
    ] {
        let bytes = post(headers, &format!("{body}{NEXT}"));
        let answers = statuses(&server, &bytes).await;
        assert_eq!(answers, [400], "{headers:?} {body:?}");
    }
    let old = format!("POST {COMPLETIONS} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}");
    assert_eq!(statuses(&server, old.as_bytes()).await, [400], "chunks in HTTP/1.0");
    assert_well(&server).await;
}

#[tokio::test]
async fn odd_paths_lead_nowhere() {
    let server = impatient().await;
    for (path, status) in [
        ("/../../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("//v1/models", 404),
        ("/v1/models/", 404),
        ("/v1/models/../../version", 404),
        ("/v1/models/%00", 404),
        ("/v1/models/%ff%fe", 400),
        ("/v1//completions", 404),
        ("/v1/completions/", 404),
        ("/V1/MODELS", 404),
        ("/version;jsessionid=1", 404),
        ("/version?x=%00", 200),
        ("http://elsewhere.example/version", 200),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert_eq!(statuses(&server, request.as_bytes()).await, [status], "{path}");
    }
    for (request, status) in [("OPTIONS *", 404), ("CONNECT elsewhere.example:443", 404), ("BREW /version", 405)] {
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert_eq!(statuses(&server, request.as_bytes()).await, [status], "{request}");
    }
    assert_well(&server).await;
}

#[tokio::test]
async fn bodies_have_bounds_and_each_refusal_has_a_journey() {
    let server = impatient().await;
    let whole = |body: &[u8]| {
        let mut bytes = post(&format!("content-length: {}\r\nconnection: close\r\n", body.len()), "");
        bytes.extend_from_slice(body);
        bytes
    };
    let nested = |open: &str, close: &str| format!("{{\"prompt\":{}{}}}", open.repeat(10_000), close.repeat(10_000));
    let chunks = format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(3) + "0\r\n\r\n";
    let cases = [
        ("ten gigabytes to come", post("content-length: 10000000000\r\n", "{"), 413),
        ("ten gigabytes, asked for first", post("content-length: 10000000000\r\nexpect: 100-continue\r\n", ""), 413),
        ("too many chunks", post("transfer-encoding: chunked\r\n", &chunks), 413),
        ("deep arrays", whole(nested("[", "]").as_bytes()), 400),
        ("deep objects", whole(nested("{\"a\":", "}").as_bytes()), 400),
        ("deep and never closed", whole("[".repeat(60_000).as_bytes()), 400),
        ("not UTF-8", whole(b"{\"prompt\": \"\xff\xfe\"}"), 400),
        ("half a surrogate", whole(br#"{"prompt": "\ud800"}"#), 400),
        (
            "a number without end",
            whole(format!("{{\"prompt\": \"a\", \"n\": {}}}", "9".repeat(60_000)).as_bytes()),
            400,
        ),
        ("one field twice", whole(br#"{"prompt": "a", "prompt": "b"}"#), 400),
        ("nothing", whole(b""), 400),
    ];
    let refused = cases.len();
    for (what, bytes, status) in cases {
        assert_eq!(statuses(&server, &bytes).await, [status], "{what}");
    }
    assert_well(&server).await;
    let spans = server.journeys().await;
    let aborted: Vec<_> = spans.iter().filter(|span| span.event_names().contains(&"api.ABORTED")).collect();
    assert_eq!(aborted.len(), refused);
    assert!(aborted.iter().all(|span| abort_reason(span) == "validation_error"));
}

#[tokio::test]
async fn headers_that_are_no_text_harm_nobody() {
    let server = impatient().await;
    let body = br#"{"prompt": "a", "max_tokens": 1}"#;
    for name in ["x-request-id", "traceparent", "tracestate", "x-vllm-journey-sampled", "authorization", "accept"] {
        let mut bytes = post(&format!("content-length: {}\r\nconnection: close\r\n{name}: ", body.len()), "");
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(b"\xff\xfe\xc3\x28\r\n\r\n");
        bytes.extend_from_slice(body);
        assert_eq!(statuses(&server, &bytes).await, [200], "{name}");
    }
    assert_well(&server).await;
}

/// Sends `bytes` one by one until the server closes; how long that took.
async fn drip(stream: &mut TcpStream, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    let (mut read, mut write) = stream.split();
    let dripping = async {
        for byte in bytes.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = async {
        let mut rest = Vec::new();
        let _ = read.read_to_end(&mut rest).await;
    };
    tokio::select! {
        () = dripping => {}
        () = closed => {}
        () = tokio::time::sleep(PATIENCE) => panic!("the server does not close"),
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_slow_head_is_closed() {
    let server = impatient().await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nx: ").await.expect("a written head");
    drip(&mut stream, b"y").await;
    assert_well(&server).await;
}

#[tokio::test]
async fn a_slow_body_is_refused_and_its_journey_says_so() {
    let server = impatient().await;
    for headers in ["content-length: 60000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut stream = connect(&server).await;
        stream.write_all(&post(headers, "")).await.expect("a written head");
        drip(&mut stream, if headers.starts_with('t') { b"1\r\nx\r\n" } else { b"x" }).await;
    }
    assert_eq!(statuses(&server, &post("content-length: 60000\r\n", "{")).await, [408]);
    let spans = server.journeys().await;
    assert_eq!(spans.len(), 3);
    assert!(spans.iter().all(|span| abort_reason(span) == "timeout"), "{spans:?}");
    assert_well(&server).await;
}

#[tokio::test]
async fn slow_bodies_do_not_take_the_places_of_those_who_wait() {
    let mut setup = Setup::default();
    setup.limits.max_waiting_requests = 1;
    let server = setup.start().await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&server).await;
        stream.write_all(&post("content-length: 60000\r\n", "{")).await.expect("a written head");
        slow.push(stream);
    }
    until("all have arrived", || server.capture.stats().spans.started == 20).await;
    assert_eq!(server.ask(COMPLETIONS, &json!({"prompt": "abc", "max_tokens": 2})).await.0, 200);
    // A body that comes whole when the place is taken is told so, and its journey says why.
    server.gate.allow(0);
    let waiting = tokio::spawn(server.ask(COMPLETIONS, &json!({"prompt": "abc", "max_tokens": 2})));
    server.until_metric("requests_waiting", "1.0").await;
    let mut late = slow.pop().expect("one of them");
    late.write_all(&vec![b' '; 59_999]).await.expect("a written body");
    let mut status = [0; 12];
    late.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 429");
    server.gate.release();
    assert_eq!(waiting.await.expect("no panic").0, 200);
    drop((slow, late));
    let spans = server.journeys().await;
    let reasons = spans.iter().filter(|span| span.event_names().contains(&"api.ABORTED")).map(abort_reason);
    let mut reasons: Vec<_> = reasons.collect();
    reasons.sort();
    assert_eq!((reasons.remove(0).as_str(), reasons), ("cancelled", vec!["client_disconnect".to_owned(); 19]));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_broken_off() {
    let server = impatient().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let address = server.url.trim_start_matches("http://").parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("a connection");
    let body = json!({"prompt": "a", "max_tokens": 500, "n": 64, "stream": true, "ignore_eos": true}).to_string();
    stream.write_all(&post(&format!("content-length: {}\r\n", body.len()), &body)).await.expect("a written request");
    until("its sequences are aborted", || server.capture.spans().len() == 65).await;
    server.assert_core_is_idle().await;
    let spans = server.journeys().await;
    let request = spans.iter().find(|span| span.name == "llm_request").expect("a request");
    assert_eq!(abort_reason(request), "client_disconnect");
    drop(stream);
    assert_well(&server).await;
}

#[tokio::test]
async fn thousands_of_idle_connections_keep_nobody_out_and_are_closed() {
    let server = impatient().await;
    let mut idle = Vec::new();
    for _ in 0..2000 {
        idle.push(connect(&server).await);
        if idle.len() % 500 == 0 {
            assert_eq!(server.ask(COMPLETIONS, &json!({"prompt": "abc", "max_tokens": 2})).await.0, 200);
        }
    }
    for stream in &mut idle {
        assert_eq!(read_to_end(stream).await, "", "closed without a word");
    }
    assert_well(&server).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_one_by_one_and_no_more_is_read_ahead() {
    let server = impatient().await;
    assert_eq!(statuses(&server, NEXT.repeat(200).as_bytes()).await, [200; 200]);
    assert_well(&server).await;
}

//! A `journey serve` of a test's own, on free ports.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Trace;

pub(crate) struct Server {
    pub(crate) child: Child,
    /// Kept open: a server whose standard output is gone could not print.
    _out: BufReader<ChildStdout>,
    pub(crate) page: String,
    pub(crate) grpc: String,
    pub(crate) otlp: String,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_journey"))
            .args(["serve", "--port", "0", "--grpc-port", "0", "--http-port", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut address = || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            line.rsplit(' ').next().unwrap().trim().to_owned()
        };
        let (page, grpc, otlp) = (address(), address(), address());
        Self { child, _out: out, page, grpc, otlp }
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let answer = reqwest::get(format!("{}{path}", self.page)).await.unwrap();
        answer.text().await.unwrap()
    }

    pub(crate) async fn post(&self, content_type: &str, encoding: &str, body: Vec<u8>) -> reqwest::Response {
        let client = reqwest::Client::new();
        let request = client.post(&self.otlp).header("content-type", content_type).header("content-encoding", encoding);
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn send(&self, trace: &Trace) {
        let answer = self.post("application/json", "identity", trace.lines(1_000).into_bytes()).await;
        assert_eq!(answer.status(), 200);
    }

    /// Waits until a page says something.
    pub(crate) async fn until(&self, path: &str, says: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let page = self.get(path).await;
            if says(&page) {
                return page;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{path} never said it: {page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

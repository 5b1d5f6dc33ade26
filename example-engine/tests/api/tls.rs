//! TLS between `serve` and `core`, as two real processes with an authority of the test's own.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::processes::{FileSpan, Process, Workspace, engine, read_spans, run};
use crate::support::until;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

/// An authority, its certificate and those of a core and an API, as PEM files beside the journeys.
struct Pki {
    workspace: Workspace,
}

impl Pki {
    fn new() -> Self {
        let pki = Self { workspace: Workspace::new() };
        for name in ["ours", "other"] {
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer =
                CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
            pki.write(&format!("{name}-ca.pem"), &issuer.pem());
            for host in ["127.0.0.1", "api"] {
                let key = KeyPair::generate().expect("a key");
                let params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
                let certificate = params.signed_by(&key, &issuer).expect("a certificate");
                pki.write(&format!("{name}-{host}.pem"), &certificate.pem());
                pki.write(&format!("{name}-{host}.key"), &key.serialize_pem());
            }
        }
        pki
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a written file");
    }

    fn path(&self, name: &str) -> String {
        self.workspace.dir.path().join(name).display().to_string()
    }

    /// A command's flags, with files in place of their names after `@`.
    fn start(&self, command: &str, flags: &[&str]) -> Process {
        let flags: Vec<_> = flags.iter().map(|flag| self.flag(flag)).collect();
        self.workspace.start(command, "0", &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn flag(&self, flag: &str) -> String {
        flag.strip_prefix('@').map_or_else(|| flag.to_owned(), |name| self.path(name))
    }

    /// What a command that does not start says.
    fn refused(&self, command: &str, flags: &[&str]) -> String {
        let flags: Vec<_> = flags.iter().map(|flag| self.flag(flag)).collect();
        let journeys = self.path("refused.jsonl");
        let args = [command, "--port", "0", "--model", &self.workspace.model, "--journeys", &journeys];
        let output = run(&[&args[..], &flags.iter().map(String::as_str).collect::<Vec<_>>()].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("text")
    }
}

const SERVER: [&str; 4] = ["--tls-cert", "@ours-127.0.0.1.pem", "--tls-key", "@ours-127.0.0.1.key"];

/// Asks until the core is up; the last status.
async fn status(server: &Process, patience: Duration) -> u16 {
    let deadline = Instant::now() + patience;
    let body = json!({"prompt": "a", "max_tokens": 2, "ignore_eos": true});
    loop {
        let request = reqwest::Client::new().post(format!("{}/v1/completions", server.url)).json(&body);
        let status = request.send().await.expect("an answer").status().as_u16();
        if status == 200 || Instant::now() > deadline {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_journey_crosses_to_a_core_behind_tls_with_certificates_on_both_sides() {
    let pki = Pki::new();
    let core = pki.start("core", &[&SERVER[..], &["--tls-client-ca", "@ours-ca.pem"]].concat());
    assert!(core.url.starts_with("https://127.0.0.1:"), "{}", core.url);
    let own = ["--core-cert", "@ours-api.pem", "--core-key", "@ours-api.key"];
    let server = pki.start("serve", &[&["--core", &core.url, "--core-ca", "@ours-ca.pem"], &own[..]].concat());
    assert_eq!(status(&server, PATIENCE).await, 200);
    for process in [server, core] {
        process.terminate();
        assert_eq!(process.exit_code(), Some(0));
    }
    let spans = read_spans(&pki.workspace.journeys);
    let cores: Vec<&FileSpan> = spans.iter().filter(|span| span.name == "llm_core").collect();
    assert_eq!(cores.len(), 1);
    let request = spans.iter().find(|span| span.span_id == cores[0].parent_span_id).expect("its llm_request");
    assert_eq!((request.name.as_str(), &request.trace_id), ("llm_request", &cores[0].trace_id));
}

#[tokio::test]
async fn whoever_cannot_prove_who_it_is_gets_no_sequence() {
    let pki = Pki::new();
    let open = pki.start("core", &SERVER);
    let closed = pki.start("core", &[&SERVER[..], &["--tls-client-ca", "@ours-ca.pem"]].concat());
    let other = ["--tls-cert", "@other-127.0.0.1.pem", "--tls-key", "@other-127.0.0.1.key"];
    let forged = pki.start("core", &other);
    let misnamed = pki.start("core", &["--tls-cert", "@ours-api.pem", "--tls-key", "@ours-api.key"]);
    let ca = ["--core-ca", "@ours-ca.pem"];
    let stranger = ["--core-ca", "@ours-ca.pem", "--core-cert", "@other-api.pem", "--core-key", "@other-api.key"];
    let plain = open.url.replace("https", "http");
    let apis = [
        ("a client without a certificate", pki.start("serve", &[&["--core", &closed.url], &ca[..]].concat())),
        ("a client of another authority", pki.start("serve", &[&["--core", &closed.url], &stranger[..]].concat())),
        ("a core of another authority", pki.start("serve", &[&["--core", &forged.url], &ca[..]].concat())),
        ("a core with another's name", pki.start("serve", &[&["--core", &misnamed.url], &ca[..]].concat())),
        ("a client that speaks no TLS", pki.start("serve", &["--core", &plain])),
    ];
    let right = pki.start("serve", &[&["--core", &open.url], &ca[..]].concat());
    assert_eq!(status(&right, PATIENCE).await, 200, "one-sided TLS");
    let log = pki.workspace.dir.path().join("log");
    let mut command = engine(&["serve", "--port", "0", "--model", &pki.workspace.model, "--core", &forged.url]);
    command.args(["--core-ca", &pki.path("ours-ca.pem"), "--journeys", "/dev/null"]);
    let _logged = Process::spawn(command.stderr(fs::File::create(&log).expect("a file")));
    let says = || fs::read_to_string(&log).expect("a log");
    until("it says why", || says().contains("invalid peer certificate: UnknownIssuer")).await;
    for (what, api) in &apis {
        assert_eq!(status(api, Duration::from_millis(100)).await, 503, "{what}");
        let health = reqwest::get(format!("{}/health", api.url)).await.expect("an answer");
        assert_eq!(health.status().as_u16(), 503, "{what}");
    }
    assert_eq!(status(&right, Duration::ZERO).await, 200, "the cores go on serving");
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let pki = Pki::new();
    pki.write("garbage.pem", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
    pki.write("empty.pem", "");
    let core = ["--core", "https://127.0.0.1:1"];
    for (command, flags, says) in [
        ("core", vec!["--tls-cert", "@missing.pem", "--tls-key", "@ours-api.key"], "missing.pem: No such file"),
        (
            "core",
            vec!["--tls-cert", "@empty.pem", "--tls-key", "@ours-api.key"],
            "empty.pem: no certificate in PEM form",
        ),
        ("core", vec!["--tls-cert", "@garbage.pem", "--tls-key", "@ours-api.key"], "garbage.pem: no certificate"),
        ("core", vec!["--tls-cert", "@ours-api.pem", "--tls-key", "@ours-api.pem"], "ours-api.pem: no private key"),
        ("core", vec!["--tls-cert", "@ours-api.pem", "--tls-key", "@other-api.key"], "other-api.key is not the key of"),
        ("core", [&SERVER[..], &["--tls-client-ca", "@empty.pem"]].concat(), "empty.pem: no certificate"),
        ("core", vec!["--tls-cert", "@ours-api.pem"], "--tls-key"),
        ("core", vec!["--tls-client-ca", "@ours-ca.pem"], "--tls-cert"),
        ("serve", core.to_vec(), "`https://127.0.0.1:1` needs `--core-ca FILE`"),
        ("serve", [&core[..], &["--core-ca", "@missing.pem"]].concat(), "missing.pem: No such file"),
        ("serve", [&core[..], &["--core-ca", "@ours-api.key"]].concat(), "ours-api.key: no certificate"),
        ("serve", vec!["--core", "http://127.0.0.1:1", "--core-ca", "@ours-ca.pem"], "would be spoken to without TLS"),
        ("serve", vec!["--core-ca", "@ours-ca.pem"], "--core"),
    ] {
        let said = pki.refused(command, &flags);
        assert!(said.contains(says), "{command} {flags:?}: {said}");
    }
}

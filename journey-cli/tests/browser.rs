//! The live page in a real headless Chromium: filters, keys, waterfalls, both themes, a phone's width; and that it asks no other host
//! for anything and prints no error.
//!
//! Needs `chromedriver` and `chromium` (Debian: packages chromium-driver and chromium). `JOURNEY_SCREENSHOTS=DIR` keeps pictures.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::process::Stdio;
use std::time::Duration;

use common::{PLAIN, Shape, Trace, journey};
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator, key::Key};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use server::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A browser of a test's own.
struct Browser {
    client: Client,
    _driver: Child,
    _profile: tempfile::TempDir,
}

/// Chromium's log, which the WebDriver standard does not have.
#[derive(Debug)]
struct Log(&'static str);

impl WebDriverCompatibleCommand for Log {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _url: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": self.0 }).to_string()))
    }
}

/// Runs a command of the DevTools protocol.
#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _url: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "cmd": self.0, "params": self.1 }).to_string()))
    }
}

impl Browser {
    /// Nothing where no driver is installed.
    async fn start() -> Option<Self> {
        let Ok(mut driver) =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).kill_on_drop(true).spawn()
        else {
            common::skipped("no chromedriver here (Debian: apt-get install chromium chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver says its port");
            if let Some(port) = line.strip_prefix("ChromeDriver was started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = tempfile::tempdir().unwrap();
        let capabilities = json!({
            "goog:chromeOptions": { "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                format!("--user-data-dir={}", profile.path().display()),
            ]},
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        client.set_window_size(1280, 900).await.unwrap();
        Some(Self { client, _driver: driver, _profile: profile })
    }

    async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
        self.until("the page to be live", "return document.getElementById('state').textContent === 'live'").await;
    }

    async fn eval(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    async fn text(&self, script: &str) -> String {
        self.eval(script).await.as_str().unwrap_or_default().to_owned()
    }

    async fn until(&self, what: &str, script: &str) {
        for _ in 0..200 {
            if self.eval(script).await == json!(true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("waited in vain for {what}: {}", self.text("return document.body.innerText").await);
    }

    async fn press(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    async fn emulate(&self, scheme: &str, width: u32, height: u32) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.client.issue_cmd(DevTools("Emulation.setEmulatedMedia", features)).await.unwrap();
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.client.issue_cmd(DevTools("Emulation.setDeviceMetricsOverride", metrics)).await.unwrap();
    }

    /// Keeps a picture, where somebody wants to look at it.
    async fn picture(&self, name: &str) {
        if let Ok(dir) = std::env::var("JOURNEY_SCREENSHOTS") {
            let picture = self.client.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.png")), picture).unwrap();
        }
    }

    /// No message in the console, and no request to anyone but `page`. (The browser's own first tab is its `chrome:` page.)
    async fn was_quiet(&self, page: &str) {
        let console = self.client.issue_cmd(Log("browser")).await.unwrap();
        assert_eq!(console, json!([]), "the console stays empty");
        let log = self.client.issue_cmd(Log("performance")).await.unwrap();
        let mut requests = 0;
        for entry in log.as_array().unwrap() {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if message["message"]["method"] == "Network.requestWillBeSent" {
                let url = message["message"]["params"]["request"]["url"].as_str().unwrap();
                assert!(
                    [page, "data:", "file:", "chrome:"].iter().any(|ours| url.starts_with(ours)),
                    "a request to {url}"
                );
                requests += 1;
            }
        }
        assert!(requests > 0, "the log has the page's own requests");
    }
}

/// What each text colour is worth on what is behind it: the least contrast of all texts on the page, and where it is.
const LEAST_CONTRAST: &str = r"
const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
function rgb(color) { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; }
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function behind(element) {
  for (let at = element; at; at = at.parentElement) { const c = rgb(getComputedStyle(at).backgroundColor); if (c[3] === 255) return c; }
  return [255, 255, 255];
}
let least = [99, ''];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.textContent.trim(), element = walk.currentNode.parentElement;
  if (!text || !element.checkVisibility() || element.closest('svg, option, script')) continue;
  const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(behind(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < least[0]) least = [ratio, text.slice(0, 40)];
}
return least;";

/// Texts that stand over one another: pairs of leaf elements whose text boxes overlap by more than a hair.
const OVERLAPS: &str = r"
const boxes = [];
for (const element of document.querySelectorAll('main *, nav *, footer')) {
  if (!element.checkVisibility() || element.closest('svg, select, .skip')) continue;
  for (const node of element.childNodes) {
    if (node.nodeType !== 3 || !node.textContent.trim()) continue;
    const range = document.createRange(); range.selectNodeContents(node);
    const clip = element.closest('td')?.getBoundingClientRect();
    for (const box of range.getClientRects()) {
      const right = clip ? Math.min(box.right, clip.right) : box.right;
      if (right - box.left > 1) boxes.push({ text: node.textContent.trim().slice(0, 30), left: box.left, right, top: box.top + 3, bottom: box.bottom - 3 });
    }
  }
}
const found = [];
for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
  const a = boxes[i], b = boxes[j];
  if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1) found.push(a.text + ' / ' + b.text);
}
return found;";

fn traffic() -> Trace {
    let mut trace = Trace::mixed();
    trace.0.extend((20..50).flat_map(|i| {
        let preemptions = u32::from(i % 7 == 0) * 3;
        journey(i, Shape { pace: 1 + i % 5, preemptions, ..PLAIN })
    }));
    // One journey that breaks the rules.
    for spanned in &mut trace.0 {
        if spanned.span["spanId"] == common::span_id(21, 0) {
            spanned.span["events"].as_array_mut().unwrap().drain(1..3);
        }
    }
    trace
}

#[tokio::test]
async fn the_page_follows_what_arrives_and_is_driven_by_keys_alone() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start(&["--settle", "0.2", "--link", "https://tempo.example/{trace_id}"]);
    browser.open(&server.page).await;
    server.send(&traffic()).await;
    browser
        .until(
            "the journeys to appear without a reload",
            "return document.body.innerText.includes('40 of 40 journeys')",
        )
        .await;

    browser.press("/").await;
    assert_eq!(browser.text("return document.activeElement.id").await, "q", "/ goes to the filter");
    browser.press("cmpl-003").await;
    browser
        .until("the filter to apply while it is typed", "return document.body.innerText.includes('10 of 40 journeys')")
        .await;
    assert_eq!(browser.text("return document.activeElement.id").await, "q", "and typing goes on");
    assert!(browser.client.current_url().await.unwrap().as_str().ends_with("?q=cmpl-003"), "the filter can be shared");
    server.send(&Trace(journey(60, PLAIN))).await;
    browser
        .until("new journeys to be counted meanwhile", "return document.body.innerText.includes('10 of 41 journeys')")
        .await;
    assert_eq!(browser.text("return document.getElementById('q').value").await, "cmpl-003", "what was typed stays");

    browser.press(&Key::Escape.to_string()).await;
    browser.press("jjk").await;
    let row = browser.text("return document.activeElement.textContent").await;
    assert!(row.starts_with("cmpl-003"), "j and k move over the rows: {row}");
    server.send(&Trace(journey(61, PLAIN))).await;
    browser.until("another refresh", "return document.body.innerText.includes('10 of 42 journeys')").await;
    assert_eq!(
        browser.text("return document.activeElement.textContent").await,
        row,
        "the row stays focused when rows are replaced"
    );
    browser.press(&Key::Enter.to_string()).await;
    browser.until("the journey to open", "return location.pathname.startsWith('/journey/')").await;
    browser.until("its waterfall", "return document.querySelectorAll('.waterfall rect').length > 3").await;
    assert!(browser.text("return document.body.innerText").await.contains("journey.FIRST_TOKEN"));
    assert!(browser.text("return document.getElementById('backend').href").await.starts_with("https://tempo.example/"));
    browser.press(&Key::Escape.to_string()).await;
    browser.until("Escape to lead back", "return location.pathname === '/' && location.search === '?q=cmpl-003'").await;

    browser.until("the page to be live again", "return document.getElementById('state').textContent === 'live'").await;
    browser.press("p").await;
    assert_eq!(browser.text("return document.getElementById('state').textContent").await, "paused");
    server.send(&Trace(journey(62, PLAIN))).await;
    server.until("?", |page| page.contains("43 of 43")).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(
        browser.text("return document.body.innerText").await.contains("10 of 42 journeys"),
        "a paused page stands still"
    );
    browser.press("p").await;
    browser.until("what was missed to be shown", "return document.body.innerText.includes('10 of 43 journeys')").await;
    browser.was_quiet(&server.page).await;
    browser.client.clone().close().await.unwrap();
}

#[tokio::test]
async fn the_pages_work_by_mouse_and_link_steps_findings_and_journeys() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start(&["--settle", "0.2"]);
    server.send(&traffic()).await;
    browser.open(&server.page).await;
    browser.client.find(Locator::Id("preempted")).await.unwrap().click().await.unwrap();
    browser.until("the filter by preemption", "return document.body.innerText.includes('7 of 40 journeys')").await;
    for (link, says) in [("Distributions", "time to first token"), ("Steps", "KV cache"), ("Findings", "missing-event")]
    {
        browser
            .client
            .find(Locator::XPath(&format!("//nav/a[starts-with(., '{link}')]")))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
        browser.until(link, &format!("return document.body.innerText.includes('{says}')")).await;
    }
    browser.client.find(Locator::Css(".findings a")).await.unwrap().click().await.unwrap();
    browser.until("the journey of a finding", "return document.querySelector('h1')?.textContent === 'cmpl-0021'").await;
    browser
        .client
        .goto(&format!("{}journey/{}-{}", server.page, common::trace_id(1), common::span_id(1, 0)))
        .await
        .unwrap();
    browser.client.find(Locator::Css("a[href^='/step/']")).await.unwrap().click().await.unwrap();
    browser.until("the step", "return document.body.innerText.includes('model_forward')").await;
    browser.client.find(Locator::LinkText("cmpl-0001")).await.unwrap().click().await.unwrap();
    browser.until("the journey again", "return document.querySelector('h1')?.textContent === 'cmpl-0001'").await;
    browser.was_quiet(&server.page).await;
    browser.client.clone().close().await.unwrap();
}

#[tokio::test]
async fn every_page_can_be_read_in_both_themes_and_on_a_phone() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start(&["--settle", "0.1", "--link", "https://tempo.example/{trace_id}"]);
    server.send(&traffic()).await;
    server.until("findings", |page| page.contains("missing-event")).await;
    let one = format!("journey/{}-{}", common::trace_id(6), common::span_id(6, 0));
    let step = server.get("steps").await.split("/step/").nth(1).unwrap()[..49].to_owned();
    let (dir, _) = common::file("traffic.jsonl", traffic().lines(9));
    assert_eq!(
        common::run_in(dir.path(), &["report", "traffic.jsonl", "--html", "report.html"], b"").status.code(),
        Some(0)
    );
    let report = format!("file://{}/report.html", dir.path().display());
    let pages = [
        ("journeys", server.page.clone()),
        ("distributions", format!("{}distributions", server.page)),
        ("steps", format!("{}steps", server.page)),
        ("step", format!("{}step/{step}", server.page)),
        ("findings", format!("{}findings", server.page)),
        ("journey", format!("{}{one}", server.page)),
        ("report", report),
    ];
    for (scheme, size, width, height) in [
        ("light", "wide", 1280, 900),
        ("dark", "wide", 1280, 900),
        ("light", "phone", 390, 844),
        ("dark", "phone", 390, 844),
    ] {
        browser.emulate(scheme, width, height).await;
        for (name, url) in &pages {
            browser.client.goto(url).await.unwrap();
            if *name == "report" {
                browser
                    .eval("for (const row of [...document.querySelectorAll('details')].slice(0, 2)) row.open = true")
                    .await;
            }
            let least = browser.eval(LEAST_CONTRAST).await;
            assert!(least[0].as_f64().unwrap() >= 4.5, "{name} {scheme}: contrast {least}");
            assert_eq!(browser.eval(OVERLAPS).await, json!([]), "{name} {scheme} {size}: texts overlap");
            let overflow = browser.eval("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(overflow.as_i64().unwrap() <= 0, "{name} {size}: the page is wider than the screen by {overflow}");
            browser.picture(&format!("{name}-{scheme}-{size}")).await;
        }
    }
    browser.was_quiet(&server.page).await;
    browser.client.clone().close().await.unwrap();
}

//! A real browser: Chromium without a screen, by `WebDriver`. `cargo xtask test` installs it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// How long a page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long between two looks at whether it does.
const BREATH: Duration = Duration::from_millis(20);

/// How a page is looked at: by day, by night and on a phone.
const VIEWS: [(&str, u32, u32, &str); 3] =
    [("light", 1280, 900, "light"), ("dark", 1280, 900, "dark"), ("phone", 390, 844, "light")];

/// A browser with one window. Its driver ends with the test process, however that ends.
pub(crate) struct Chromium {
    pub(crate) client: Client,
    url: String,
    driver: Child,
    stdin: ChildStdin,
}

/// What Chromium's driver does beyond the standard.
#[derive(Debug)]
struct Beyond {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Beyond {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl Chromium {
    /// A window on the pages below `url`.
    pub(crate) async fn start(url: &str) -> Self {
        let script = "chromedriver --port=0 & pid=$!; exec > /dev/null; cat; kill $pid; wait $pid";
        let mut driver = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = driver.stdin.take().unwrap();
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("successfully on port ")?.1.to_owned()))
            .expect("chromedriver is not there: cargo xtask test installs it");
        let capabilities = json!({
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--lang=en-GB",
            ]},
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{}/", port.trim_end_matches('.')))
            .await
            .unwrap();
        Self { client, url: url.to_owned(), driver, stdin }
    }

    /// Goes to a page.
    pub(crate) async fn go(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.url)).await.unwrap();
    }

    /// Clicks on what a selector finds, once it is there and visible.
    pub(crate) async fn click(&self, selector: &str) {
        self.shows(selector).await;
        self.client.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    /// Clicks on what leads to another page, and waits until that is there.
    pub(crate) async fn follow(&self, selector: &str) {
        self.run("document.documentElement.dataset.before = 'yes'").await;
        self.click(selector).await;
        self.until(
            "document.readyState === 'complete' && !document.documentElement.dataset.before",
        )
        .await;
    }

    /// Types into a field, in the place of what it holds.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        self.shows(selector).await;
        let field = self.client.find(Locator::Css(selector)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Waits until what a selector finds is there and visible; its text.
    pub(crate) async fn shows(&self, selector: &str) -> String {
        let seen = async {
            loop {
                if let Ok(found) = self.client.find(Locator::Css(selector)).await
                    && let (Ok(true), Ok(text)) = (found.is_displayed().await, found.text().await)
                {
                    return text;
                }
                tokio::time::sleep(BREATH).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.unwrap_or_else(|_| panic!("{selector} is not to be seen"))
    }

    /// Waits until a script answers `true`; a page on its way out answers nothing.
    pub(crate) async fn until(&self, script: &str) {
        let script = format!("return {script}");
        let comes_true = async {
            while !matches!(self.client.execute(&script, Vec::new()).await, Ok(Value::Bool(true))) {
                tokio::time::sleep(BREATH).await;
            }
        };
        let comes_true = tokio::time::timeout(PATIENCE, comes_true).await;
        comes_true.unwrap_or_else(|_| panic!("it never comes true: {script}"));
    }

    /// What a script answers, run in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Looks at the page by day, by night and on a phone: nothing sticks out, axe-core finds
    /// nothing, and a picture of it is in `target/screenshots`.
    pub(crate) async fn look(&self, name: &str) {
        let axe =
            std::fs::read_to_string(root().join("target/tools/node_modules/axe-core/axe.min.js"));
        let axe = axe.expect("axe-core is not there: cargo xtask test installs it");
        for (view, width, height, scheme) in VIEWS {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            self.devtools("Emulation.setEmulatedMedia", media).await;
            let size = |height: u64| {
                json!({
                    "width": width,
                    "height": height,
                    "deviceScaleFactor": 1,
                    "mobile": view == "phone",
                })
            };
            self.devtools("Emulation.setDeviceMetricsOverride", size(height.into())).await;
            let whole = self.run("return document.documentElement.scrollHeight").await;
            let whole = whole.as_u64().unwrap().clamp(height.into(), 4_000);
            self.devtools("Emulation.setDeviceMetricsOverride", size(whole)).await;
            self.until(&format!("innerWidth === {width}")).await;
            let out = "return document.documentElement.scrollWidth > innerWidth";
            assert_eq!(self.run(out).await, json!(false), "{name} is wider than {view}");
            self.run(&axe).await;
            let found = "const done = arguments[arguments.length - 1]; axe.run().then(r => \
                done(r.violations.map(v => [v.id, v.nodes.map(n => n.html)])));";
            let found = self.client.execute_async(found, Vec::new()).await.unwrap();
            assert_eq!(found, json!([]), "{name}, {view}");
            self.picture(&format!("{name}-{view}.png")).await;
        }
        self.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;
        self.devtools("Emulation.setEmulatedMedia", json!({"features": []})).await;
    }

    async fn picture(&self, file: &str) {
        let folder = root().join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let picture = self.devtools("Page.captureScreenshot", json!({"format": "png"})).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(folder.join(file), picture).unwrap();
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.client.issue_cmd(Beyond { path: "goog/cdp/execute", body }).await.unwrap()
    }

    /// What the browser has complained of since it was last asked: scripts that failed, what the
    /// page's policy refused.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let body = json!({"type": "browser"});
        let log = self.client.issue_cmd(Beyond { path: "se/log", body }).await.unwrap();
        let entries = log.as_array().unwrap().iter();
        let bad = entries.filter(|entry| entry["level"] == "SEVERE");
        bad.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Closes the window and ends the driver.
    pub(crate) async fn close(mut self) {
        self.client.close().await.unwrap();
        drop(self.stdin);
        self.driver.wait().unwrap();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

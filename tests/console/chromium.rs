//! A real browser: Chromium, driven as a person would.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fantoccini::elements::Element;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::system::target;

/// How long a page may take to become what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a page is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Light,
    Dark,
    /// As wide as a phone, light.
    Phone,
}

impl Look {
    pub(crate) const ALL: [Self; 3] = [Self::Light, Self::Dark, Self::Phone];

    fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
            Self::Phone => "phone",
        }
    }
}

/// A browser with a profile of its own.
pub(crate) struct Chromium {
    client: Client,
    driver: Child,
    origin: String,
    _profile: TempDir,
}

impl Chromium {
    /// Starts a browser that looks at pages of `origin`, such as `http://127.0.0.1:8080`.
    pub(crate) async fn start(origin: &str) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, with the browser in it, so that both end together.
            .process_group(0)
            .spawn()
            .expect("chromedriver is missing; cargo xtask test installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("chromedriver ended").unwrap();
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", "--window-size=1280,900", folder,
        ]});
        let capabilities = json!({
            "goog:chromeOptions": options,
            // What a page tells its console, so that it can be asked for.
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium does not start");
        Self { client, driver, origin: origin.to_owned(), _profile: profile }
    }

    /// Ends the browser.
    pub(crate) async fn end(self) {
        drop(self.client.clone().close().await);
    }

    /// Opens a page by its path.
    pub(crate) async fn open(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.origin)).await.unwrap();
    }

    /// Opens a page by its whole address.
    pub(crate) async fn open_address(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    /// The path of the page on screen, with its query.
    pub(crate) async fn path(&self) -> String {
        let address = self.client.current_url().await.unwrap();
        address.as_str().strip_prefix(&self.origin).unwrap_or(address.as_str()).to_owned()
    }

    /// Waits for an element; the first of its kind.
    pub(crate) async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        match found {
            Ok(element) => element,
            Err(error) => {
                panic!("no {css} on {}: {error}\n{}", self.path().await, self.text().await)
            }
        }
    }

    /// All that can be read on the page.
    pub(crate) async fn text(&self) -> String {
        let script = "return document.body ? document.body.innerText : ''";
        self.run(script, vec![]).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page says something.
    pub(crate) async fn says(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text().await;
            if text.contains(words) {
                return;
            }
            let path = self.path().await;
            assert!(Instant::now() < deadline, "{path} does not say {words:?} but\n{text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Clicks what carries these words: a link, a button or a summary.
    pub(crate) async fn click(&self, words: &str) {
        self.click_in("body", words).await;
    }

    /// The same within an element.
    pub(crate) async fn click_in(&self, css: &str, words: &str) {
        let words = xpath_text(words);
        let path =
            format!(".//*[self::a or self::button or self::summary][normalize-space()={words}]");
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Found anew each time: it may be of a page that is being left.
            let place = self.find(css).await;
            for element in place.find_all(Locator::XPath(&path)).await.unwrap_or_default() {
                // Hidden ones, such as those of a dialog that is closed, are none.
                if element.is_displayed().await.unwrap_or(false) && element.click().await.is_ok() {
                    return;
                }
            }
            assert!(
                Instant::now() < deadline,
                "nothing to click says {words} on {}:\n{}",
                self.path().await,
                self.text().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Types into the field of a label, in the place of what is there.
    pub(crate) async fn fill(&self, label: &str, text: &str) {
        let field = self.field(label).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Chooses a file in the field of a label.
    pub(crate) async fn choose_file(&self, label: &str, path: &Path) {
        self.field(label).await.send_keys(path.to_str().unwrap()).await.unwrap();
    }

    /// The field that a label names, found as assistive technology does.
    pub(crate) async fn field(&self, label: &str) -> Element {
        let words = xpath_text(label);
        let path = format!("//label[starts-with(normalize-space(),{words})]");
        let at_most = self.client.wait().at_most(PATIENCE);
        let Ok(found) = at_most.for_element(Locator::XPath(&path)).await else {
            panic!("no label {words} on {}:\n{}", self.path().await, self.text().await);
        };
        let id = self
            .run("return arguments[0].control.id", vec![serde_json::to_value(found).unwrap()])
            .await;
        let id = id.as_str().unwrap_or_default().to_owned();
        assert!(!id.is_empty(), "the label {words} names no field with an id");
        self.find(&format!("[id={}]", json!(id))).await
    }

    /// Clicks the first element of its kind, again where the page has just put another in its
    /// place.
    pub(crate) async fn click_on(&self, css: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.find(css).await.click().await {
            assert!(Instant::now() < deadline, "cannot click {css}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a script and returns what it returns.
    pub(crate) async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.unwrap()
    }

    /// The size of the window, and whether it is dark.
    pub(crate) async fn look(&self, look: Look) {
        let (width, mobile) = if look == Look::Phone { (390, true) } else { (1280, false) };
        let size = json!({"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": mobile});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if look == Look::Dark { "dark" } else { "light" };
        // Without motion, so that nothing is looked at on its way from one colour to another.
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Leaves a picture of the page from its top to its end in `target/screenshots`.
    pub(crate) async fn picture(&self, name: &str, look: Look) {
        self.look(look).await;
        let script = "return Math.min(document.documentElement.scrollHeight, 4000)";
        let height = self.run(script, vec![]).await;
        let width = if look == Look::Phone { 390 } else { 1280 };
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let whole = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        self.capture(&format!("{name}-{}", look.name()), whole).await;
    }

    /// Leaves a picture of what is on screen, for the README.
    pub(crate) async fn screen(&self, name: &str) {
        self.capture(name, json!({"format": "png"})).await;
    }

    async fn capture(&self, name: &str, how: Value) {
        let taken = self.devtools("Page.captureScreenshot", how).await;
        let folder = target().join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let bytes = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// What axe-core finds wrong with the page, a line each.
    pub(crate) async fn violations(&self) -> Vec<String> {
        let file = target().join("tools/node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&file)
            .expect("axe-core is missing; cargo xtask test installs it");
        self.run(&axe, vec![]).await;
        let script = "const done = arguments[arguments.length - 1];
            axe.run().then(found => done(found.violations), error => done([{id: String(error)}]))";
        let found = self.client.execute_async(script, vec![]).await.unwrap();
        let line = |violation: &Value| {
            let nodes = violation["nodes"].as_array().into_iter().flatten();
            let nodes: Vec<&str> = nodes.filter_map(|node| node["html"].as_str()).take(5).collect();
            format!("{}: {} {nodes:#?}", violation["id"], violation["help"])
        };
        found.as_array().unwrap().iter().map(line).collect()
    }

    /// What the page has told its console since it was last asked: errors, refused scripts.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let command = Raw { path: "se/log", body: json!({"type": "browser"}) };
        let entries = self.client.issue_cmd(command).await.unwrap();
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Whether a script has opened a dialog of the browser.
    pub(crate) async fn has_alert(&self) -> bool {
        match self.client.get_alert_text().await {
            Ok(_) => true,
            Err(error) if error.is_no_such_alert() => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// A command of Chromium's own protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.client.issue_cmd(Raw { path: "goog/cdp/execute", body }).await.unwrap()
    }

    /// The browser's cookie of a name, as the browser keeps it.
    pub(crate) async fn cookie(&self, name: &str) -> Option<fantoccini::cookies::Cookie<'static>> {
        match self.client.get_named_cookie(name).await {
            Ok(cookie) => Some(cookie),
            Err(error) if error.is_no_such_cookie() => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Where a test has failed, nobody has told the browser to end.
        let group = format!("-{}", self.driver.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.driver.wait());
    }
}

/// A command that the library has no name for.
#[derive(Debug)]
struct Raw {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Raw {
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

fn xpath_text(words: &str) -> String {
    if words.contains('"') { format!("'{words}'") } else { format!("\"{words}\"") }
}
